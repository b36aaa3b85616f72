// Mirroring: a filter between a disk and its image that notes what guests change, while a job copies everything, and then
// what was changed meanwhile, to another image, until both are the same and the guest can go on with the other one.
//
//     start: all of it is to be copied -> step, step, ... (guests go on) -> remaining is small -> stop guests -> finish
import Glibc
import Synchronization

/// Usage: MirrorImage(of: image, to: target) in the image's place; `step` from one thread until `remainingByteCount` is small;
/// then stop the guest's queues and `finish`.
package final class MirrorImage: BlockingImage {
    /// What is noted and copied at once.
    package static let chunkByteCount: UInt64 = 1 << 20

    private struct State: Sendable {
        /// One for each chunk that differs, perhaps.
        var isChanged: [Bool]
        var changedCount: Int
        var next = 0

        mutating func mark(_ chunks: ClosedRange<Int>) {
            for chunk in chunks where chunk < isChanged.count && !isChanged[chunk] {
                isChanged[chunk] = true
                changedCount += 1
            }
        }

        /// The next chunk that differs; it counts as the same from now on.
        mutating func take() -> Int? {
            guard changedCount > 0 else { return nil }
            while !isChanged[next] { next = (next + 1) % isChanged.count }
            isChanged[next] = false
            changedCount -= 1
            return next
        }
    }
    private let source: any BlockingImage
    private let target: any BlockingImage
    private let state: Mutex<State>

    /// - Parameter target: writable, at least as large.
    package init(of source: any BlockingImage, to target: any BlockingImage) throws(ImageError) {
        guard !target.isReadOnly, target.byteCount >= source.byteCount else {
            throw ImageError(
                .refused, "mirror", subject: "an image of \(source.byteCount) bytes",
                reason: "the target has \(target.byteCount), or is open only for reading")
        }
        self.source = source
        self.target = target
        let chunks = Int(clamping: (source.byteCount + Self.chunkByteCount - 1) / Self.chunkByteCount)
        state = Mutex(State(isChanged: Array(repeating: true, count: chunks), changedCount: chunks))
    }

    package var byteCount: UInt64 { source.byteCount }
    package var isReadOnly: Bool { source.isReadOnly }
    package var logicalBlockByteCount: UInt32 { source.logicalBlockByteCount }
    package var physicalBlockByteCount: UInt32 { source.physicalBlockByteCount }
    /// At most this many bytes differ.
    package var remainingByteCount: UInt64 { UInt64(state.withLock { $0.changedCount }) * Self.chunkByteCount }

    package func perform(_ request: BlockRequest, vectors: TransferVectors) -> CInt {
        let result = source.perform(request, vectors: vectors)
        switch request.operation {
        case .read, .flush: break
        case .write, .discard, .writeZeroes:
            // After the change, failed or not: a copy that began before it is done again.
            guard request.byteCount > 0, request.offset < byteCount else { break }
            let last = request.offset + min(request.byteCount, byteCount - request.offset) - 1
            state.withLock {
                $0.mark(Int(request.offset / Self.chunkByteCount)...Int(last / Self.chunkByteCount))
            }
        }
        return result
    }

    package func settle() { source.settle() }
    package func close() throws(ImageError) { try source.close() }

    /// Copies one chunk that differs; false where none does.
    package func step() throws(ImageError) -> Bool {
        guard let chunk = state.withLock({ $0.take() }) else { return false }
        let offset = UInt64(chunk) * Self.chunkByteCount
        let count = min(Self.chunkByteCount, byteCount - offset)
        do throws(ImageError) {
            let memory = try source.read(at: offset, count: Int(count))
            let request: BlockRequest
            if memory.isZero {
                request = BlockRequest(.writeZeroes(mayUnmap: true), offset: offset, byteCount: count, tag: 0)
                try target.carryOut(request)
            } else {
                request = BlockRequest(.write(isDurable: false), offset: offset, byteCount: count, tag: 0)
                try target.carryOut(request, vectors: memory.vectors)
            }
        } catch {
            state.withLock { $0.mark(chunk...chunk) }
            throw error
        }
        return true
    }

    /// Copies the rest and makes the target durable. No guest's request is under way, and none comes before this returns.
    package func finish() throws(ImageError) {
        while try step() {}
        try target.carryOut(BlockRequest(.flush, tag: 0))
    }
}

extension ScratchMemory {
    /// True where all bytes are zero.
    package var isZero: Bool {
        guard byteCount > 0, let base = unsafe bytes.baseAddress else { return true }
        // SAFETY: compares the memory with itself one byte on, within its length.
        return unsafe bytes[0] == 0 && memcmp(base, base + 1, byteCount - 1) == 0
    }
}
