// A PS/2 mouse: three buttons, after Microsoft's knock a wheel (id 3), after a second one five buttons (id 4). Follows
// IBM PS/2 Hardware Interface, "Mouse", and for the knock the sample rates 200, 100, 80 (200, 200, 80) that
// IntelliMouse drivers set.
//
// Movement is not queued but added up until the guest has read the report before, as the counters of a real mouse are;
// a button that changes gets a report of its own while there is room for four.

package struct MouseButtons: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let left = MouseButtons(rawValue: 1), right = MouseButtons(rawValue: 2),
        middle = MouseButtons(rawValue: 4)
    package static let side = MouseButtons(rawValue: 8), extra = MouseButtons(rawValue: 16)
}

package struct PS2Mouse: Sendable, Equatable {
    package enum Command {
        package static let scaling1To1: UInt8 = 0xE6, scaling2To1: UInt8 = 0xE7, resolution: UInt8 = 0xE8
        package static let status: UInt8 = 0xE9, streamMode: UInt8 = 0xEA, readData: UInt8 = 0xEB, endWrap: UInt8 = 0xEC
        package static let wrapMode: UInt8 = 0xEE, remoteMode: UInt8 = 0xF0, readID: UInt8 = 0xF2,
            sampleRate: UInt8 = 0xF3
        package static let enable: UInt8 = 0xF4, disable: UInt8 = 0xF5, setDefault: UInt8 = 0xF6
        package static let resend: UInt8 = 0xFE, reset: UInt8 = 0xFF
    }
    package enum Reply {
        package static let acknowledge: UInt8 = 0xFA, resend: UInt8 = 0xFE, selfTestPassed: UInt8 = 0xAA
    }
    package enum Kind: UInt8, Sendable { case plain = 0, wheel = 3, fiveButtons = 4 }

    /// What the counters hold at most; more of it is thrown away, as the guest would see nothing for minutes.
    private static let countLimit = 1 << 16

    var replies = PS2Queue(), reports = PS2Queue()
    package internal(set) var kind = Kind.plain
    package internal(set) var isEnabled = false
    var isRemote = false, isWrapping = false, isScaled2To1 = false
    /// Counts per millimetre: 1 << resolution.
    var resolution: UInt8 = 2
    /// Reports per second. The last three rates set are the knock.
    var sampleRate: UInt8 = 100
    var rateBefore: UInt8 = 0, rateBeforeThat: UInt8 = 0
    var pendingCommand: UInt8?
    var lastSent: UInt8 = 0
    var buttons = MouseButtons(), reportedButtons = MouseButtons()
    /// Movement not reported yet: right, up and the wheel towards the user are positive.
    var x = 0, y = 0, z = 0

    package init() {}

    // MARK: The controller's side

    /// The next byte on the wire: answers first.
    package mutating func next() -> UInt8? {
        guard let byte = replies.popFirst() ?? reports.popFirst() else { return nil }
        if byte != Reply.resend { lastSent = byte }
        if reports.isEmpty { reportChanges() }
        return byte
    }

    /// A byte from the host.
    package mutating func receive(_ byte: UInt8) {
        if isWrapping, byte != Command.reset, byte != Command.endWrap {
            replies.append(byte)
            return
        }
        if let command = pendingCommand {
            pendingCommand = nil
            return take(parameter: byte, of: command)
        }
        switch byte {
        case Command.resolution, Command.sampleRate: pendingCommand = byte
        case Command.scaling1To1: isScaled2To1 = false
        case Command.scaling2To1: isScaled2To1 = true
        case Command.status:
            replies.append(contentsOf: [Reply.acknowledge, status, resolution, sampleRate])
            return
        case Command.streamMode:
            isRemote = false
            forgetMovement()
        case Command.remoteMode:
            isRemote = true
            forgetMovement()
        case Command.wrapMode: isWrapping = true
        case Command.endWrap: isWrapping = false
        case Command.readData:
            guard replies.append(Reply.acknowledge) else { return }
            replies.append(contentsOf: takeReport(isScaled: false))
            return
        case Command.readID:
            replies.append(contentsOf: [Reply.acknowledge, kind.rawValue])
            return
        case Command.enable:
            isEnabled = true
            forgetMovement()
        case Command.disable:
            isEnabled = false
            forgetMovement()
        case Command.setDefault: setDefaults()
        case Command.resend:
            replies.append(lastSent)
            return
        case Command.reset:
            let held = buttons
            self = PS2Mouse()
            buttons = held
            reportedButtons = held
            replies.append(contentsOf: [Reply.acknowledge, Reply.selfTestPassed, Kind.plain.rawValue])
            return
        // Drivers ask for touch pads and sticks this way; a quick refusal saves them a timeout.
        default:
            replies.append(Reply.resend)
            return
        }
        replies.append(Reply.acknowledge)
    }

    private mutating func take(parameter: UInt8, of command: UInt8) {
        if command == Command.resolution {
            resolution = parameter & 3
        } else {
            (rateBeforeThat, rateBefore, sampleRate) = (rateBefore, sampleRate, parameter)
            switch (rateBeforeThat, rateBefore, sampleRate) {
            case (200, 100, 80): kind = .wheel
            case (200, 200, 80): kind = .fiveButtons
            default: break
            }
        }
        replies.append(Reply.acknowledge)
    }

    /// The first byte of the answer to 0xE9.
    private var status: UInt8 {
        var status: UInt8 = 0
        if buttons.contains(.right) { status |= 0x01 }
        if buttons.contains(.middle) { status |= 0x02 }
        if buttons.contains(.left) { status |= 0x04 }
        if isScaled2To1 { status |= 0x10 }
        if isEnabled { status |= 0x20 }
        if isRemote { status |= 0x40 }
        return status
    }

    private mutating func setDefaults() {
        isEnabled = false
        isRemote = false
        isScaled2To1 = false
        resolution = 2
        sampleRate = 100
        forgetMovement()
    }

    private mutating func forgetMovement() {
        reports = PS2Queue()
        (x, y, z) = (0, 0, 0)
        reportedButtons = buttons
    }

    // MARK: The user's side

    /// Moves by `dx` to the right, `dy` down and `wheel` notches away from the user, with `buttons` down afterwards.
    package mutating func move(dx: Int, dy: Int, wheel: Int, buttons: MouseButtons) {
        let change = self.buttons != buttons
        // Movement before a click belongs into a report before it; where there is no room, both become one.
        if change, !reports.isEmpty { reportChanges() }
        self.buttons = buttons
        guard isEnabled || isRemote else { return }
        x = Self.clamp(x &+ Self.clamp(dx, Self.countLimit), Self.countLimit)
        y = Self.clamp(y &- Self.clamp(dy, Self.countLimit), Self.countLimit)
        z = Self.clamp(z &- Self.clamp(wheel, Self.countLimit), Self.countLimit)
        if change || reports.isEmpty { reportChanges() }
    }

    /// In stream mode, queues what was not reported yet.
    private mutating func reportChanges() {
        guard isEnabled, !isRemote, !isWrapping, reports.space >= 4 else { return }
        guard x != 0 || y != 0 || z != 0 && kind != .plain || buttons != reportedButtons else { return }
        reports.append(contentsOf: takeReport(isScaled: isScaled2To1))
    }

    /// A report of as much movement as fits into one; the rest stays.
    private mutating func takeReport(isScaled: Bool) -> PS2Queue {
        // Two's complement in nine bits; scaling doubles at most.
        let limit = isScaled ? 127 : 255
        let dx = Self.clamp(x, limit), dy = Self.clamp(y, limit)
        x -= dx
        y -= dy
        let sentX = isScaled ? Self.scaled(dx) : dx, sentY = isScaled ? Self.scaled(dy) : dy
        var first: UInt8 = 0x08 | buttons.rawValue & 0x07
        if sentX < 0 { first |= 0x10 }
        if sentY < 0 { first |= 0x20 }
        var report: PS2Queue = [first, UInt8(truncatingIfNeeded: sentX), UInt8(truncatingIfNeeded: sentY)]
        let dz = Self.clamp(z, kind == .fiveButtons ? 7 : 127)
        z = kind == .plain ? 0 : z - dz
        switch kind {
        case .plain: break
        case .wheel: report.append(UInt8(truncatingIfNeeded: dz))
        case .fiveButtons: report.append(UInt8(truncatingIfNeeded: dz) & 0x0F | (buttons.rawValue & 0x18) << 1)
        }
        reportedButtons = buttons
        return report
    }

    /// Scaling 2:1: small movements are slowed, large ones doubled.
    private static func scaled(_ count: Int) -> Int {
        let size = abs(count)
        let scaled =
            switch size {
            case 0, 1: size
            case 2: 1
            case 3: 3
            case 4: 6
            case 5: 9
            default: size * 2
            }
        return count < 0 ? -scaled : scaled
    }

    private static func clamp(_ value: Int, _ limit: Int) -> Int { min(max(value, -limit), limit) }
}
