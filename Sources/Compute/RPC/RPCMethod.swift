// One row of the method table: what a compute RPC method takes, how it is called, what surrounds it, whether it is carried out.

/// What surrounds an operation (RPC reference §2), outermost first.
package struct Wrappers: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// E: a notification of the exception.
    package static let exceptionNotification = Wrappers(rawValue: 1)
    /// T: `task_state` is cleared after a failure.
    package static let revertsTaskState = Wrappers(rawValue: 2)
    /// A: start and end of an action event.
    package static let actionEvent = Wrappers(rawValue: 4)
    /// M: the migration's status becomes "error" after a failure.
    package static let migrationError = Wrappers(rawValue: 8)
    /// F: a fault of the instance after a failure.
    package static let instanceFault = Wrappers(rawValue: 16)
    /// L: one at a time for an instance.
    package static let lock = Wrappers(rawValue: 32)

    /// "ETAFL": the letters of the reference.
    init(_ letters: String) {
        var wrappers: Wrappers = []
        for (letter, wrapper) in Self.letters where letters.contains(letter) { wrappers.insert(wrapper) }
        self = wrappers
    }

    package var text: String { String(Self.letters.filter { contains($0.1) }.map(\.0)) }

    private static let letters: [(Character, Wrappers)] = [
        ("E", .exceptionNotification), ("T", .revertsTaskState), ("A", .actionEvent), ("M", .migrationError),
        ("F", .instanceFault), ("L", .lock),
    ]
}

/// A method of the compute RPC API.
package struct RPCMethod: Sendable {
    package enum Delivery: String, Sendable {
        case cast, call
        /// A call of up to `long_rpc_timeout`, kept alive by heartbeats.
        case longCall = "call*"
    }
    /// What a method that is not carried out answers with.
    package enum Refusal: Sendable, Equatable {
        /// builtins.NotImplementedError, which the API makes a 501 of.
        case notImplemented
        /// This class: the caller then undoes what it has begun, where NotImplementedError would leave a server in error.
        case exception(String)
    }
    package let name: String
    package let delivery: Delivery
    package let wrappers: Wrappers
    package let arguments: [RPCArgument]
    /// Nil: carried out.
    package let refusal: Refusal?
    /// Minor version of 6.x that brought it.
    package let minorVersion: Int

    package var isCarriedOut: Bool { refusal == nil }

    static func carriedOut(
        _ name: String, _ delivery: Delivery, _ letters: String, _ arguments: [RPCArgument]
    ) -> RPCMethod {
        RPCMethod(
            name: name, delivery: delivery, wrappers: Wrappers(letters), arguments: arguments, refusal: nil,
            minorVersion: 0)
    }

    static func refused(
        _ name: String, _ delivery: Delivery, _ letters: String, _ arguments: [RPCArgument],
        as refusal: Refusal = .notImplemented, since minorVersion: Int = 0
    ) -> RPCMethod {
        RPCMethod(
            name: name, delivery: delivery, wrappers: Wrappers(letters), arguments: arguments, refusal: refusal,
            minorVersion: minorVersion)
    }
}
