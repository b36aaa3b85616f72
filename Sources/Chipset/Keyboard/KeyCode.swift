// Which key of a PC keyboard: its scan code of set 1, with bit 7 for the keys whose code has the prefix E0. That is the
// number the RFB protocol's extended key event carries ("XT keycode") and that QEMU calls qnum.

package struct KeyCode: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The prefix E0 comes before the code.
    package var isExtended: Bool { rawValue & 0x80 != 0 }

    /// The key of a Linux event code (input-event-codes.h, KEY_*); nil where a PC keyboard has no such key.
    package init?(evdev code: UInt16) {
        switch code {
        // KEY_ESC to KEY_KPDOT, KEY_102ND, KEY_F11 and KEY_F12 are numbered by their scan codes.
        case 1...83, 86...88: rawValue = UInt8(code)
        default:
            guard let key = Self.beyondSetOne.first(where: { $0.evdev == code })?.key else { return nil }
            self = key
        }
    }

    /// Keys whose event code differs from their scan code.
    private static let beyondSetOne: [(evdev: UInt16, key: KeyCode)] = [
        (96, .keypadEnter), (97, .rightControl), (98, .keypadSlash), (99, .printScreen), (100, .rightAlt), (102, .home),
        (103, .up), (104, .pageUp), (105, .left), (106, .right), (107, .end), (108, .down), (109, .pageDown),
        (110, .insert),
        (111, .delete), (113, .mute), (114, .volumeDown), (115, .volumeUp), (116, .power), (119, .pause),
        (125, .leftMeta),
        (126, .rightMeta), (127, .menu), (142, .sleep), (143, .wake), (89, .ro), (124, .yen), (92, .henkan),
        (94, .muhenkan),
        (93, .katakanaHiragana),
    ]

    package static let escape = KeyCode(rawValue: 0x01), backspace = KeyCode(rawValue: 0x0E),
        tab = KeyCode(rawValue: 0x0F)
    package static let enter = KeyCode(rawValue: 0x1C), space = KeyCode(rawValue: 0x39),
        capsLock = KeyCode(rawValue: 0x3A)
    package static let leftControl = KeyCode(rawValue: 0x1D), rightControl = KeyCode(rawValue: 0x9D)
    package static let leftShift = KeyCode(rawValue: 0x2A), rightShift = KeyCode(rawValue: 0x36)
    package static let leftAlt = KeyCode(rawValue: 0x38), rightAlt = KeyCode(rawValue: 0xB8)
    package static let leftMeta = KeyCode(rawValue: 0xDB), rightMeta = KeyCode(rawValue: 0xDC),
        menu = KeyCode(rawValue: 0xDD)
    package static let numLock = KeyCode(rawValue: 0x45), scrollLock = KeyCode(rawValue: 0x46)
    package static let home = KeyCode(rawValue: 0xC7), end = KeyCode(rawValue: 0xCF)
    package static let up = KeyCode(rawValue: 0xC8), down = KeyCode(rawValue: 0xD0)
    package static let left = KeyCode(rawValue: 0xCB), right = KeyCode(rawValue: 0xCD)
    package static let pageUp = KeyCode(rawValue: 0xC9), pageDown = KeyCode(rawValue: 0xD1)
    package static let insert = KeyCode(rawValue: 0xD2), delete = KeyCode(rawValue: 0xD3)
    package static let keypadEnter = KeyCode(rawValue: 0x9C), keypadSlash = KeyCode(rawValue: 0xB5)
    /// Alone and with Alt (`systemRequest`) this key sends different codes; the keyboard chooses.
    package static let printScreen = KeyCode(rawValue: 0xB7), systemRequest = KeyCode(rawValue: 0x54)
    /// Sends its whole sequence when pressed and nothing when released.
    package static let pause = KeyCode(rawValue: 0xC6)
    package static let mute = KeyCode(rawValue: 0xA0), volumeDown = KeyCode(rawValue: 0xAE),
        volumeUp = KeyCode(rawValue: 0xB0)
    package static let power = KeyCode(rawValue: 0xDE), sleep = KeyCode(rawValue: 0xDF), wake = KeyCode(rawValue: 0xE3)
    package static let ro = KeyCode(rawValue: 0x73), yen = KeyCode(rawValue: 0x7D), henkan = KeyCode(rawValue: 0x79)
    package static let muhenkan = KeyCode(rawValue: 0x7B), katakanaHiragana = KeyCode(rawValue: 0x70)
}

/// A set of keys, one bit each.
struct KeySet: Sendable, Equatable {
    var plain: UInt128 = 0, extended: UInt128 = 0

    var isEmpty: Bool { plain | extended == 0 }
    /// The key with the lowest number.
    var first: KeyCode? {
        if plain != 0 { return KeyCode(rawValue: UInt8(plain.trailingZeroBitCount)) }
        return extended == 0 ? nil : KeyCode(rawValue: UInt8(extended.trailingZeroBitCount) | 0x80)
    }

    func contains(_ key: KeyCode) -> Bool { (key.isExtended ? extended : plain) & Self.bit(key) != 0 }
    mutating func insert(_ key: KeyCode) {
        if key.isExtended { extended |= Self.bit(key) } else { plain |= Self.bit(key) }
    }
    mutating func remove(_ key: KeyCode) {
        if key.isExtended { extended &= ~Self.bit(key) } else { plain &= ~Self.bit(key) }
    }
    private static func bit(_ key: KeyCode) -> UInt128 { 1 << UInt128(key.rawValue & 0x7F) }
}
