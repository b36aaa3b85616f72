// Devices of the board that a machine has only where its description names them.
import JSON

/// All absent unless said otherwise. Other monitors' boards of the same kind have an HPET of their own accord; Nova asks for none
/// unless an image says hw_time_hpet, and so does this.
package struct BoardConfiguration: Sendable, Equatable {
    /// The high precision event timer at 0xFED00000.
    package var hpet: Bool
    /// The i6300ESB watchdog, and what the machine does when it runs out (Nova's hw_watchdog_action; nil is its `disabled`).
    package var watchdog: WatchdogAction?
    /// Port 0x505, where a guest says that its kernel panicked; `onGuestCrash` says what comes of it.
    package var panic: Bool
    /// The virtual machine generation id: another one than before tells the guest that it goes on from an earlier point.
    package var generationID: MachineUUID?
    /// A file for what the guest writes to port 0xE9.
    package var debugConsole: Int?
    /// Port 0xF4: a value written there ends the monitor with (value << 1) | 1. For tests.
    package var debugExit: Bool
    /// PCI Express root ports of a q35 board, numbered from 0; each has a place for one device, which names it as its `port`.
    package var rootPorts: Int
    package static let rootPortLimit = 16

    package init(
        hpet: Bool = false, watchdog: WatchdogAction? = nil, panic: Bool = false, generationID: MachineUUID? = nil, debugConsole: Int? = nil,
        debugExit: Bool = false, rootPorts: Int = 0
    ) {
        self.hpet = hpet
        self.watchdog = watchdog
        self.panic = panic
        self.generationID = generationID
        self.debugConsole = debugConsole
        self.debugExit = debugExit
        self.rootPorts = rootPorts
    }
}

/// What a watchdog that ran out does, by Nova's names.
package enum WatchdogAction: String, Sendable, CaseIterable {
    /// As a reset that the guest asks for.
    case reset
    case poweroff
    case pause
    /// Clients hear of it, and the guest goes on.
    case none
}

/// What becomes of a machine whose guest says that it crashed.
package enum GuestCrashPolicy: String, Sendable, CaseIterable {
    /// It stays as it is, for inspection, in state internal-error.
    case preserve
    case reset
    case shutdown
}

extension BoardConfiguration {
    static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> BoardConfiguration {
        var board = BoardConfiguration(
            hpet: try members.boolIfPresent("hpet") ?? false, panic: try members.boolIfPresent("panic") ?? false,
            debugConsole: try members.integerIfPresent("debugConsole", in: GuestConfiguration.descriptors),
            debugExit: try members.boolIfPresent("debugExit") ?? false,
            rootPorts: try members.integerIfPresent("rootPorts", in: 0...rootPortLimit) ?? 0)
        if let action = try members.stringIfPresent("watchdog", upTo: 64) {
            guard let known = WatchdogAction(rawValue: action) else {
                throw members.error("watchdog", "none of \(WatchdogAction.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            board.watchdog = known
        }
        if let text = try members.stringIfPresent("generationID", upTo: 64) {
            guard let id = MachineUUID(text) else { throw members.error("generationID", "not a UUID") }
            board.generationID = id
        }
        return board
    }

    var json: JSONValue {
        var members: [String: JSONValue] = ["hpet": .bool(hpet), "panic": .bool(panic), "debugExit": .bool(debugExit), "rootPorts": .integer(Int64(rootPorts))]
        if let watchdog { members["watchdog"] = .string(watchdog.rawValue) }
        if let generationID { members["generationID"] = .string(generationID.description) }
        if let debugConsole { members["debugConsole"] = .integer(Int64(debugConsole)) }
        return .object(members)
    }
}
