// A save that is being written: a thread of its own, so that clients of the control socket are served meanwhile. The machine stands
// still until it is done.
import Glibc
import GuestMemory
import HostSystem
import MonitorProtocol
import Synchronization

/// For the loop's thread. @unchecked: `thread` is touched there only; the rest is shared with the writing thread under locks.
final class SaveTask: @unchecked Sendable {
    private let writer: StateFileWriter
    private let loop: EventLoop
    private let done: EventDescriptor
    private let outcome = Mutex<Result<SaveReport, MonitorRefusal>?>(nil)
    private var thread: HostSystem.Thread?

    /// - Parameters:
    ///   - file: the task's own from here on.
    ///   - begin: CLOCK_MONOTONIC when the save was asked for.
    ///   - synchronise: makes the disks whole; called on the task's thread.
    ///   - finish: called on the loop's thread, unless the task is abandoned.
    init(
        _ writer: StateFileWriter, to file: consuming OwnedDescriptor, began begin: UInt64, on loop: EventLoop,
        synchronise: @escaping @Sendable () throws -> Void, finish: @escaping @Sendable (Result<SaveReport, MonitorRefusal>) -> Void
    ) throws(HostError) {
        self.writer = writer
        self.loop = loop
        done = try EventDescriptor()
        let number = done.rawValue
        try loop.add(number, for: .readable) { [weak self] _ in
            guard let self, let outcome = outcome.withLock({ $0 }) else { return }
            end()
            finish(outcome)
        }
        let file = file.release()
        do throws(HostError) {
            thread = try HostSystem.Thread(named: "save") { [self] in
                let owned = OwnedDescriptor(owning: file)
                let result = Self.write(writer, to: owned.rawValue, began: begin, synchronise)
                outcome.withLock { $0 = result }
                done.signal()
            }
        } catch {
            _ = close(file)
            loop.remove(number)
            throw error
        }
    }

    private static func write(
        _ writer: StateFileWriter, to file: CInt, began begin: UInt64, _ synchronise: () throws -> Void
    ) -> Result<SaveReport, MonitorRefusal> {
        do {
            try synchronise()
            let written = try writer.write(to: file)
            return .success(
                SaveReport(
                    bytes: Int(clamping: written.fileByteCount), ramBytes: Int(clamping: written.ram.byteCount),
                    nanoseconds: Int(clamping: SystemClock.monotonicNanoseconds &- begin)))
        } catch {
            return .failure(MonitorRefusal(.genericError, "\(error); the machine stays paused"))
        }
    }

    /// Calls it off and waits for the thread: what was written stays without a header, which nobody takes for a saved state.
    func abandon() {
        writer.cancel()
        end()
    }

    private func end() {
        loop.remove(done.rawValue)
        if let thread = thread.take() { thread.join() }
    }
}
