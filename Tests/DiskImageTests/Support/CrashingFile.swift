// A file in memory that stops working after a number of writes, and what a disk holds then: everything that was synchronised,
// and of what came later either all (a killed process) or any sectors (a power failure).
import DiskImage
import Glibc
import Synchronization

final class CrashingFile: ImageFile {
    private struct State {
        var bytes: [UInt8]
        /// As of the last synchronisation.
        var durable: [UInt8]
        /// What came after it, in order.
        var pending: [(offset: Int, bytes: [UInt8])] = []
        /// Writes until the crash; nil: none is planned.
        var writesLeft: Int?
        var isCrashed = false
    }
    private let state: Mutex<State>
    let name = "crashing"
    let canGrow: Bool
    /// The file system's room, or the device's size.
    let capacity: Int

    init(bytes: [UInt8] = [], canGrow: Bool = true, capacity: Int = .max) {
        state = Mutex(State(bytes: bytes, durable: bytes))
        self.canGrow = canGrow
        self.capacity = capacity
    }

    /// The file stops after `count` more writes or synchronisations; nil: not any more.
    func crash(after count: Int?) { state.withLock { $0.writesLeft = count } }
    var isCrashed: Bool { state.withLock { $0.isCrashed } }
    var bytes: [UInt8] { state.withLock { $0.bytes } }

    /// What a disk may hold after the crash.
    func remains(losingSectors: Bool, _ numbers: inout SeededNumbers) -> [UInt8] {
        let (cached, durable, pending) = state.withLock { ($0.bytes, $0.durable, $0.pending) }
        guard losingSectors else { return cached }
        var result = durable
        let survival = [20, 50, 80].randomElement(using: &numbers) ?? 50
        for write in pending {
            // An empty write is a change of size.
            if write.bytes.isEmpty { result += [UInt8](repeating: 0, count: max(0, write.offset - result.count)) }
            for start in stride(from: 0, to: write.bytes.count, by: 512)
            where Int.random(in: 0..<100, using: &numbers) < survival {
                let end = min(start + 512, write.bytes.count)
                let missing = write.offset + end - result.count
                if missing > 0 { result += [UInt8](repeating: 0, count: missing) }
                result.replaceSubrange((write.offset + start)..<(write.offset + end), with: write.bytes[start..<end])
            }
        }
        return result
    }

    var byteCount: UInt64 { state.withLock { UInt64($0.bytes.count) } }

    func read(into vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        let part = state.withLock { state -> [UInt8] in
            let start = min(state.bytes.count, Int(clamping: offset))
            let end = min(state.bytes.count, start + vectors.byteCount)
            return Array(state.bytes[start..<end])
        }
        vectors.fill(from: part + [UInt8](repeating: 0, count: vectors.byteCount - part.count), at: 0)
    }

    func write(_ vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        let bytes = vectors.bytes
        if Int(offset) + bytes.count > capacity {
            throw ImageError(.host(errno: ENOSPC), "write", subject: name, reason: "no room")
        }
        try change { state in
            let end = Int(offset) + bytes.count
            if end > state.bytes.count { state.bytes += [UInt8](repeating: 0, count: end - state.bytes.count) }
            state.bytes.replaceSubrange(Int(offset)..<end, with: bytes)
            state.pending.append((Int(offset), bytes))
        }
    }

    func synchronise() throws(ImageError) {
        try change { state in
            state.durable = state.bytes
            state.pending = []
        }
    }

    func setByteCount(_ byteCount: UInt64) throws(ImageError) {
        if Int(byteCount) > capacity {
            throw ImageError(.host(errno: ENOSPC), "resize", subject: name, reason: "no room")
        }
        try change { state in
            state.bytes += [UInt8](repeating: 0, count: max(0, Int(byteCount) - state.bytes.count))
            state.pending.append((Int(byteCount), []))
        }
    }

    func giveBack(offset: UInt64, byteCount: UInt64) {
        do throws(ImageError) {
            try change { state in
                let end = min(state.bytes.count, Int(offset + byteCount))
                guard Int(offset) < end else { return }
                let zeroes = [UInt8](repeating: 0, count: end - Int(offset))
                state.bytes.replaceSubrange(Int(offset)..<end, with: zeroes)
                state.pending.append((Int(offset), zeroes))
            }
        } catch {}
    }

    private func change(_ body: (inout State) -> Void) throws(ImageError) {
        let isAlive = state.withLock { state -> Bool in
            if let left = state.writesLeft {
                if left <= 0 { state.isCrashed = true }
                state.writesLeft = left - 1
            }
            if state.isCrashed { return false }
            body(&state)
            return true
        }
        if !isAlive { throw ImageError(.host(errno: EIO), "write", subject: name, reason: "it has crashed") }
    }
}
