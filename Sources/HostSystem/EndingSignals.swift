// SIGTERM, SIGINT and SIGHUP as a descriptor, so that a loop hears of them between two other things.
import CLinux
import Glibc

/// The signals that ask a process to end. Make it before the first thread: threads inherit what is blocked.
package struct EndingSignals: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    package init() throws(HostError) {
        let number = apus_ending_signals()
        guard number >= 0 else { throw HostError("create", subject: "signalfd", errno: errno) }
        descriptor = OwnedDescriptor(owning: number)
    }

    /// Readable when one has come.
    package var rawValue: CInt { descriptor.rawValue }

    /// Takes what has come. True where there was one.
    @discardableResult
    package borrowing func drain() -> Bool {
        var information = [UInt8](repeating: 0, count: 1024)
        // SAFETY: writes at most the array's own length.
        return unsafe read(descriptor.rawValue, &information, information.count) > 0
    }
}
