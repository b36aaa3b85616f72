// An image in memory whose requests end when the loop is served: the same input always sees the same order.
import DiskImage
import Glibc
import HostSystem
import Synchronization

@safe final class FuzzDisk: BlockBackend, @unchecked Sendable {
    // @unchecked: one thread uses it.
    static let disk = FuzzDisk(byteCount: 512 << 10)
    static let disc = FuzzDisk(byteCount: 64 << 10)

    let byteCount: UInt64
    let isReadOnly = false
    let logicalBlockByteCount: UInt32 = 512
    let physicalBlockByteCount: UInt32 = 4096
    /// The next request fails with this errno.
    var nextError: CInt = 0
    private var isDirty = true
    fileprivate let memory: UnsafeMutableRawBufferPointer

    private init(byteCount: Int) {
        self.byteCount = UInt64(byteCount)
        unsafe memory = .allocate(byteCount: byteCount, alignment: 4096)
    }

    static func clear() {
        for disk in [disk, disc] {
            disk.nextError = 0
            guard disk.isDirty else { continue }
            unsafe disk.memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
            disk.isDirty = false
        }
    }

    func makeQueue(depth: Int, vectorLimit: Int) throws(HostError) -> any BlockQueue {
        try FuzzDiskQueue(self, depth: depth, vectorLimit: vectorLimit)
    }

    fileprivate func perform(_ request: BlockRequest, _ vectors: UnsafeMutableBufferPointer<iovec>) -> CInt {
        defer { nextError = 0 }
        if nextError != 0 { return nextError }
        if request.operation == .flush { return 0 }
        let (end, overflow) = request.offset.addingReportingOverflow(request.byteCount)
        if overflow || end > byteCount { finding("a request outside of the image: \(request)") }
        var start = Int(request.offset)
        switch request.operation {
        case .flush, .discard: break
        case .writeZeroes:
            isDirty = true
            unsafe UnsafeMutableRawBufferPointer(rebasing: memory[start..<Int(end)]).initializeMemory(as: UInt8.self, repeating: 0)
        case .read, .write:
            var sum = 0
            for vector in unsafe vectors { sum += unsafe vector.iov_len }
            if sum != Int(request.byteCount) { finding("vectors of \(sum) bytes for \(request)") }
            if request.operation != .read { isDirty = true }
            for vector in unsafe vectors {
                guard let base = unsafe vector.iov_base else { continue }
                let place = unsafe memory.baseAddress.map { unsafe $0 + start }
                guard let place = unsafe place else { continue }
                if request.operation == .read { unsafe memcpy(base, place, vector.iov_len) } else { unsafe memcpy(place, base, vector.iov_len) }
                start += unsafe vector.iov_len
            }
        }
        return 0
    }
}

@safe private final class FuzzDiskQueue: BlockQueue, @unchecked Sendable {
    private let disk: FuzzDisk
    private let depth: Int, vectorLimit: Int
    /// By slot, made when it is first used.
    private var slots: [Int: UnsafeMutableBufferPointer<iovec>] = [:]
    private let event: EventDescriptor
    private var submitted: [(BlockRequest, Int)] = []
    private var busy: Set<Int> = []

    init(_ disk: FuzzDisk, depth: Int, vectorLimit: Int) throws(HostError) {
        self.disk = disk
        self.depth = depth
        self.vectorLimit = vectorLimit
        event = try EventDescriptor()
    }

    deinit { for slot in unsafe slots.values { unsafe slot.deallocate() } }

    var completionDescriptor: CInt { event.rawValue }

    @unsafe func vectors(for tag: Int) -> UnsafeMutableBufferPointer<iovec> {
        guard (0..<depth).contains(tag) else { finding("slot \(tag) of \(depth)") }
        if let slot = unsafe slots[tag] { return unsafe slot }
        let slot = UnsafeMutableBufferPointer<iovec>.allocate(capacity: vectorLimit)
        unsafe slot.initialize(repeating: iovec())
        unsafe slots[tag] = slot
        return unsafe slot
    }

    func submit(_ request: BlockRequest, vectorCount: Int) {
        guard (0..<depth).contains(request.tag), busy.insert(request.tag).inserted, (0...vectorLimit).contains(vectorCount) else {
            finding("slot \(request.tag) is submitted twice, or has \(vectorCount) vectors")
        }
        submitted.append((request, vectorCount))
    }

    func commit() { if !submitted.isEmpty { event.signal() } }

    func reap(_ body: (BlockCompletion) -> Void) {
        event.drain()
        let ended = submitted
        submitted = []
        for (request, vectorCount) in ended {
            let result = unsafe disk.perform(request, UnsafeMutableBufferPointer(rebasing: vectors(for: request.tag)[0..<vectorCount]))
            busy.remove(request.tag)
            body(BlockCompletion(tag: request.tag, errno: result))
        }
    }
}
