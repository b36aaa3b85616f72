// A PS/2 keyboard with 101 to 105 keys (IBM PS/2 Hardware Interface, "Keyboard"): scan code sets 1 and 2, lock
// indicators, commands of the host answered at once, keys queued until the controller lets them through. Its power-on
// test takes no time.
//
// Set 3 is refused (0xFE), as many keyboards do; nothing repeats by itself, because who injects keys repeats them.

package struct PS2Keyboard: Sendable, Equatable {
    package enum Command {
        package static let setIndicators: UInt8 = 0xED, echo: UInt8 = 0xEE, scanCodeSet: UInt8 = 0xF0,
            readID: UInt8 = 0xF2
        package static let typematic: UInt8 = 0xF3, enable: UInt8 = 0xF4, defaultDisable: UInt8 = 0xF5
        package static let setDefault: UInt8 = 0xF6, resend: UInt8 = 0xFE, reset: UInt8 = 0xFF
    }
    package enum Reply {
        package static let acknowledge: UInt8 = 0xFA, resend: UInt8 = 0xFE, selfTestPassed: UInt8 = 0xAA
    }
    /// 0xAB 0x83: an MF2 keyboard.
    private static let identifier: PS2Queue = [Reply.acknowledge, 0xAB, 0x83]
    /// 10.9 characters per second after half a second.
    private static let typematicAtPowerOn: UInt8 = 0x2B
    /// Keys wait in as many bytes. With the controller's output register and the release of the last key they stay
    /// below 16, the number at which a driver that flushes what was typed before it started takes the controller for a
    /// port that is not there (Linux, i8042_flush).
    static let eventByteLimit = 12

    var replies = PS2Queue(), events = PS2Queue()
    package internal(set) var isScanning = true
    package internal(set) var scanCodeSet: UInt8 = 2
    /// Bit 0 scroll lock, bit 1 num lock, bit 2 caps lock.
    package internal(set) var indicators: UInt8 = 0
    var typematic = typematicAtPowerOn
    /// The command whose parameter comes next.
    var pendingCommand: UInt8?
    var lastSent: UInt8 = 0
    /// Keys whose make code was queued and whose break code was not.
    var held = KeySet()
    /// Keys released while the queue was full: their break codes follow, so that none stays down for the guest.
    var owed = KeySet()

    package init() {}

    // MARK: The controller's side

    /// The next byte on the wire: answers first.
    package mutating func next() -> UInt8? {
        guard let byte = replies.popFirst() ?? events.popFirst() else { return nil }
        if byte != Reply.resend { lastSent = byte }
        payOwed()
        return byte
    }

    /// A byte from the host.
    package mutating func receive(_ byte: UInt8) {
        // No parameter has bit 7: such a byte is the next command.
        if let command = pendingCommand, byte < 0x80 {
            pendingCommand = nil
            return take(parameter: byte, of: command)
        }
        pendingCommand = nil
        switch byte {
        case Command.setIndicators, Command.scanCodeSet, Command.typematic:
            pendingCommand = byte
            replies.append(Reply.acknowledge)
        case Command.echo: replies.append(Command.echo)
        case Command.readID: replies.append(contentsOf: Self.identifier)
        case Command.enable:
            forgetKeys()
            isScanning = true
            replies.append(Reply.acknowledge)
        case Command.defaultDisable:
            setDefaults()
            isScanning = false
            replies.append(Reply.acknowledge)
        case Command.setDefault:
            setDefaults()
            replies.append(Reply.acknowledge)
        // What all keys send: only set 3 can tell.
        case 0xF7...0xFA: replies.append(Reply.acknowledge)
        case Command.resend: replies.append(lastSent)
        case Command.reset:
            self = PS2Keyboard()
            replies.append(contentsOf: [Reply.acknowledge, Reply.selfTestPassed])
        default: replies.append(Reply.resend)
        }
    }

    private mutating func take(parameter: UInt8, of command: UInt8) {
        switch command {
        case Command.setIndicators: indicators = parameter & 0x07
        case Command.typematic: typematic = parameter
        default:
            guard parameter <= 2 else {
                replies.append(Reply.resend)
                return
            }
            guard parameter != 0 else {
                replies.append(contentsOf: [Reply.acknowledge, scanCodeSet])
                return
            }
            forgetKeys()
            scanCodeSet = parameter
        }
        replies.append(Reply.acknowledge)
    }

    private mutating func setDefaults() {
        forgetKeys()
        scanCodeSet = 2
        typematic = Self.typematicAtPowerOn
    }

    private mutating func forgetKeys() {
        events = PS2Queue()
        held = KeySet()
        owed = KeySet()
    }

    // MARK: The user's side

    /// A key goes down, or repeats. False where the guest does not listen or has not read enough: the key is lost.
    package mutating func press(_ key: KeyCode) -> Bool {
        guard isScanning, owed.isEmpty, queue(key, isDown: true) else { return false }
        if key != .pause { held.insert(key) }
        return true
    }

    /// A key goes up. A key that the guest does not know as pressed has nothing to say.
    package mutating func release(_ key: KeyCode) {
        guard isScanning, held.contains(key) else { return }
        held.remove(key)
        if !queue(key, isDown: false) { owed.insert(key) }
    }

    private mutating func queue(_ key: KeyCode, isDown: Bool) -> Bool {
        let sequence =
            scanCodeSet == 1
            ? ScanCodes.setOne(key, isDown: isDown, held: held) : ScanCodes.setTwo(key, isDown: isDown, held: held)
        guard events.count + sequence.count <= Self.eventByteLimit else { return false }
        return events.append(contentsOf: sequence)
    }

    private mutating func payOwed() {
        while let key = owed.first, queue(key, isDown: false) { owed.remove(key) }
    }
}
