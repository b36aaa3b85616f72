// Where the serial port's bytes go: a descriptor, and where that is a file, never more of it than a bound.
//
// A guest sends a byte an exit. The first after a silence is written at once; what follows within a millisecond is collected and
// written together; whoever asks for the log's end, and the end of the process, gets what waits first. One lock, a leaf.
import Chipset
import Glibc
package import HostSystem
package import Synchronization

/// Writes the console to a descriptor. A file is kept below `limit` bytes: at the bound its older half is dropped.
package final class ConsoleOutput: SerialOutput {
    private struct State: Sendable {
        /// Bytes in the file.
        var length: Int
        var waiting: [UInt8] = []
        /// CLOCK_MONOTONIC of the last write.
        var written: UInt64 = 0
    }
    private static let delayNanoseconds: UInt64 = 1_000_000

    private let descriptor: OwnedDescriptor
    private let limit: Int
    private let batch: Int
    private let isFile: Bool
    private let timer: LoopTimer
    private let state: Mutex<State>
    /// Bytes the descriptor did not take.
    package let dropped = Atomic<UInt64>(0)

    /// - Parameter loop: whose thread writes what has waited long enough.
    package init(owning descriptor: consuming OwnedDescriptor, limit: Int = 1 << 20, on loop: EventLoop)
        throws(HostError)
    {
        var status = stat()
        let known = unsafe fstat(descriptor.rawValue, &status) == 0
        isFile = known && status.st_mode & S_IFMT == S_IFREG
        state = Mutex(State(length: isFile ? Int(status.st_size) : 0))
        self.limit = max(limit, 2)
        batch = min(4096, self.limit / 2)
        self.descriptor = descriptor
        timer = try LoopTimer(on: loop)
        timer.onExpiry { [weak self] in self?.flush() }
    }

    package var isRegularFile: Bool { isFile }

    package func write(_ byte: UInt8) {
        state.withLock { state in
            state.waiting.append(byte)
            if state.waiting.count >= batch { return write(&state) }
            guard state.waiting.count == 1 else { return }
            let due = state.written &+ Self.delayNanoseconds
            if SystemClock.monotonicNanoseconds >= due { write(&state) } else { timer.set(to: due) }
        }
    }

    /// Writes what waits.
    package func flush() {
        state.withLock { write(&$0) }
    }

    /// The last `count` bytes of the file; nil where the console does not go to one.
    package func tail(_ count: Int) -> [UInt8]? {
        guard isFile else { return nil }
        return state.withLock { state in
            write(&state)
            let wanted = min(max(count, 0), state.length)
            var bytes = [UInt8](repeating: 0, count: wanted)
            // SAFETY: pread fills at most `wanted` bytes of a buffer of that size.
            let got = unsafe pread(descriptor.rawValue, &bytes, wanted, off_t(state.length - wanted))
            return Array(bytes.prefix(max(got, 0)))
        }
    }

    private func write(_ state: inout State) {
        guard !state.waiting.isEmpty else { return }
        if isFile, state.length + state.waiting.count > limit { state.length = dropOlderHalf(of: state.length) }
        var written = 0
        while written < state.waiting.count {
            // SAFETY: reads the rest of an array that does not change meanwhile.
            let done = unsafe state.waiting.withUnsafeBytes { bytes -> Int in
                guard let start = bytes.baseAddress else { return 0 }
                let rest = bytes.count - written
                return unsafe isFile
                    ? pwrite(descriptor.rawValue, start + written, rest, off_t(state.length))
                    : Glibc.write(descriptor.rawValue, start + written, rest)
            }
            if done < 0, errno == EINTR { continue }
            guard done > 0 else { break }
            written += done
            state.length += done
        }
        state.written = SystemClock.monotonicNanoseconds
        dropped.wrappingAdd(UInt64(state.waiting.count - written), ordering: .relaxed)
        state.waiting.removeAll(keepingCapacity: true)
    }

    /// Moves the newer half to the front; the new length is the answer.
    private func dropOlderHalf(of length: Int) -> Int {
        let kept = min(limit / 2, length)
        var tail = [UInt8](repeating: 0, count: kept)
        // SAFETY: pread fills at most `kept` bytes of a buffer of that size; pwrite reads as many as were filled.
        let got = unsafe pread(descriptor.rawValue, &tail, kept, off_t(length - kept))
        guard got > 0, unsafe pwrite(descriptor.rawValue, tail, got, 0) == got,
            ftruncate(descriptor.rawValue, off_t(got)) == 0
        else {
            _ = ftruncate(descriptor.rawValue, 0)
            return 0
        }
        return got
    }
}

/// A serial port that nobody listens to.
package final class NoConsole: SerialOutput {
    package init() {}
    package func write(_ byte: UInt8) {}
}
