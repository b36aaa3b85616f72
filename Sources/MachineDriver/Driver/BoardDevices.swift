// What a board has besides the usual, where image or flavor ask for it: Nova's hw_time_hpet and hw_watchdog_action.
import ComputeDriver
import JSON
import MachineConfiguration

/// One guest's, as its directory keeps it.
struct BoardDevices: Sendable, Equatable {
    var hasHPET = false
    /// Nil: there is no watchdog.
    var watchdog: WatchdogAction?

    init() {}

    /// The flavor's word counts before the image's.
    init(_ image: ImageFields, _ specs: [String: String]) throws(DriverError) {
        hasHPET = image.flag("hw_time_hpet")
        // The second is the older spelling, which Nova still reads.
        guard let action = specs["hw:watchdog_action"] ?? specs["hw_watchdog_action"] ?? image.text("hw_watchdog_action"),
            action != "disabled"
        else { return }
        guard let known = WatchdogAction(rawValue: action) else {
            throw DriverError(
                novaClass: "InvalidWatchdogAction",
                tenantMessage:
                    "Provided watchdog action (\(action.prefix(64))) is not supported; there are disabled, \(WatchdogAction.allCases.map(\.rawValue).joined(separator: ", ")).",
                fault: .caller)
        }
        watchdog = known
    }

    func apply(to board: inout BoardConfiguration) {
        board.hpet = hasHPET
        board.watchdog = watchdog
    }

    var json: JSONValue { ["hpet": .bool(hasHPET), "watchdog": watchdog.map { .string($0.rawValue) } ?? .null] }

    init(json: JSONValue?) {
        hasHPET = json?["hpet"]?.boolValue ?? false
        watchdog = json?["watchdog"]?.stringValue.flatMap { WatchdogAction(rawValue: $0) }
    }
}
