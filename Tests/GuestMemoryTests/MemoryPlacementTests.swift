import Glibc
import HostSystem
import Testing

@testable import GuestMemory

/// RAM bound to nodes of the host, and of huge pages. Most hosts have one node, 0, and no huge page to spare.
struct MemoryPlacementTests {
    private static let size: UInt64 = 8 << 20, low: UInt64 = 4 << 20
    private static let knowsNodes = HostNodes.usable.contains(0)

    private func bound(_ node: Int) throws(HostError) -> GuestMemory {
        try GuestMemory(
            byteCount: Self.size, lowMemoryEnd: Self.low,
            placement: MemoryPlacement(bindings: [MemoryPlacement.Binding(fileRange: 0..<Self.size, hostNode: node, guestNode: 3)]))
    }

    @Test func smallPagesOfAnywhereArePlain() {
        #expect(MemoryPlacement().isPlain && !MemoryPlacement(pageSize: .twoMiB).isPlain)
        #expect(!MemoryPlacement(bindings: [MemoryPlacement.Binding(fileRange: 0..<4096, hostNode: 0, guestNode: 0)]).isPlain)
    }

    @Test(.enabled(if: knowsNodes, "this host's kernel knows no NUMA nodes"))
    func aNodeThatIsNotThereIsNamedWithThoseThatAre() throws {
        let missing = try #require((0..<HostNodes.limit).last { !HostNodes.usable.contains($0) })
        let error = #expect(throws: HostError.self) { _ = try bound(missing) }
        let text = error?.description ?? ""
        #expect(text.contains("bind guest node 3's RAM to host node \(missing)") && text.contains("(host)") && text.contains("node") && text.contains("0"), "\(text)")
    }

    @Test(.enabled(if: knowsNodes, "this host's kernel knows no NUMA nodes"))
    func boundRAMIsReadFromASavedFileAndStaysInItsPlace() throws {
        let memory = try bound(0)
        try memory.write(Array("low".utf8), at: GuestAddress(0x1000))
        try memory.write(Array("high".utf8), at: GuestAddress(1 << 32))
        let file = try makeMemoryFile(named: "image", byteCount: Int(Self.size) + 4096)
        _ = try memory.write(to: file.rawValue, at: 4096) { false }

        let other = try bound(0)
        try other.write(Array("gone".utf8), at: GuestAddress(0x3000))
        try other.write([9], at: GuestAddress((1 << 32) + Self.size - Self.low - 1))
        try other.adopt(file.rawValue, at: 4096)
        #expect(try other.bytes(at: GuestAddress(0x1000), count: 3) == Array("low".utf8))
        #expect(try other.bytes(at: GuestAddress(1 << 32), count: 4) == Array("high".utf8))
        #expect(try other.load(UInt32.self, at: GuestAddress(0x3000)) == 0)
        #expect(try other.load(UInt8.self, at: GuestAddress((1 << 32) + Self.size - Self.low - 1)) == 0)
        // It is the memfd's still, and nothing hangs on the file.
        let identity = try FileIdentity(of: file.rawValue)
        #expect(other.descriptor != nil && !other.isImage(identity))
        #expect(try other.giveUp(at: GuestAddress(0x1000), byteCount: 4096))
        #expect(try other.load(UInt32.self, at: GuestAddress(0x1000)) == 0)
    }

    @Test(.enabled(if: knowsNodes, "this host's kernel knows no NUMA nodes"))
    func aFileThatWasCutIsZeroesFromThereOnAndNoBusError() throws {
        let memory = try bound(0), file = try makeMemoryFile(named: "image", byteCount: 1 << 20), end: [UInt8] = [1, 2, 3]
        #expect(pwrite(file.rawValue, end, end.count, (1 << 20) - 3) == 3)
        try memory.store(UInt8(9), at: GuestAddress(2 << 20))
        try memory.adopt(file.rawValue, at: 0)
        #expect(try memory.load(UInt8.self, at: GuestAddress((1 << 20) - 1)) == 3)
        #expect(try memory.load(UInt8.self, at: GuestAddress(2 << 20)) == 0)
    }

    @Test func hugePagesNeedAWholeNumberOfThem() {
        let error = #expect(throws: HostError.self) { _ = try GuestMemory(byteCount: 3 << 20, placement: MemoryPlacement(pageSize: .twoMiB)) }
        #expect(error?.description.contains("give a multiple of its pages' 2 MiB") == true, "\(String(describing: error))")
    }

    /// More than any host has: 64 TiB of address space, of which none can be reserved.
    @Test(arguments: [(MemoryPlacement.PageSize.twoMiB, "33554432 pages of 2 MiB"), (.oneGiB, "65536 pages of 1024 MiB")])
    func tooFewHugePagesAreToldAtTheStartWithWhatToDo(size: MemoryPlacement.PageSize, words: String) {
        let error = #expect(throws: HostError.self) { _ = try GuestMemory(byteCount: 64 << 40, placement: MemoryPlacement(pageSize: size)) }
        let text = error?.description ?? ""
        // A kernel without that size says so by another errno.
        #expect(text.contains("no pages of that size") || (text.contains(words) && text.contains("(host)") && text.contains("nr_hugepages")), "\(text)")
    }

    private static let hasHugePage = (try? GuestMemory(byteCount: 2 << 20, placement: MemoryPlacement(pageSize: .twoMiB))) != nil

    @Test(.enabled(if: hasHugePage, "this host has no huge page of 2 MiB to spare")) func aBalloonTakesNothingOutOfHugePages() throws {
        let memory = try GuestMemory(byteCount: 2 << 20, placement: MemoryPlacement(pageSize: .twoMiB))
        try memory.store(UInt32(7), at: GuestAddress(0x1000))
        #expect(try !memory.giveUp(at: GuestAddress(0), byteCount: 2 << 20))
        #expect(try memory.load(UInt32.self, at: GuestAddress(0x1000)) == 7)
    }
}
