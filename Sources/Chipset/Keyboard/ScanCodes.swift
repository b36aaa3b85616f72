// Scan codes of a key in set 2, which keyboards send, and their translation to set 1, which the controller does for
// software of the PC/XT (IBM PS/2 Hardware Interface, "Keyboard scan codes"; the table is the one in the 8042's ROM).

/// The controller's translation from set 2 to set 1.
struct ScanCodeTranslator: Sendable, Equatable {
    /// F0 came: the next code is a release.
    var isBreak = false

    /// Nil for the prefix F0, which set 1 says with bit 7 of the code that follows.
    mutating func translate(_ byte: UInt8) -> UInt8? {
        if byte == ScanCodes.breakPrefix {
            isBreak = true
            return nil
        }
        defer { isBreak = false }
        let code = byte < 0x80 ? ScanCodes.setOneOfSetTwo[Int(byte)] : ScanCodes.setOneAbove(byte)
        return isBreak ? code | 0x80 : code
    }
}

enum ScanCodes {
    static let breakPrefix: UInt8 = 0xF0, extendedPrefix: UInt8 = 0xE0, pausePrefix: UInt8 = 0xE1

    /// Set 1 code by set 2 code, below 0x80.
    static let setOneOfSetTwo: [UInt8] = [
        0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
        0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
        0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
        0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
        0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
        0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
        0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
        0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
    ]

    /// F7 and SysRq are the two keys above 0x7F; every other byte there (prefixes, answers) stays itself.
    static func setOneAbove(_ byte: UInt8) -> UInt8 {
        switch byte {
        case 0x83: 0x41
        case 0x84: 0x54
        default: byte
        }
    }

    private static let setTwoOfSetOne: [UInt8] = {
        var codes = [UInt8](repeating: 0, count: 0x80)
        for (setTwo, setOne) in setOneOfSetTwo.enumerated() where setOne < 0x80 { codes[Int(setOne)] = UInt8(setTwo) }
        codes[0x41] = 0x83
        codes[0x54] = 0x84
        return codes
    }()

    /// What a keyboard in set 2 sends when `key` goes down or up, with `held` the other keys that are down. Empty:
    /// nothing.
    static func setTwo(_ key: KeyCode, isDown: Bool, held: KeySet) -> PS2Queue {
        let hasAlt = held.contains(.leftAlt) || held.contains(.rightAlt)
        let hasControl = held.contains(.leftControl) || held.contains(.rightControl)
        let hasShift = held.contains(.leftShift) || held.contains(.rightShift)
        switch key {
        case .printScreen where hasAlt: return setTwo(.systemRequest, isDown: isDown, held: KeySet())
        // Without shift or control the keyboard makes a shift of its own around the code, for software that knows no
        // E0.
        case .printScreen where !hasShift && !hasControl:
            return isDown ? [0xE0, 0x12, 0xE0, 0x7C] : [0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12]
        case .pause where !isDown: return []
        case .pause where hasControl: return [0xE0, 0x7E, 0xE0, 0xF0, 0x7E]
        case .pause: return [0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]
        default: break
        }
        let code = setTwoOfSetOne[Int(key.rawValue & 0x7F)]
        guard code != 0 else { return [] }
        var sequence = PS2Queue()
        if key.isExtended { sequence.append(extendedPrefix) }
        if !isDown { sequence.append(breakPrefix) }
        sequence.append(code)
        return sequence
    }

    /// The same in set 1.
    static func setOne(_ key: KeyCode, isDown: Bool, held: KeySet) -> PS2Queue {
        var source = setTwo(key, isDown: isDown, held: held)
        var translator = ScanCodeTranslator(), sequence = PS2Queue()
        while let byte = source.popFirst() {
            if let code = translator.translate(byte) { sequence.append(code) }
        }
        return sequence
    }
}
