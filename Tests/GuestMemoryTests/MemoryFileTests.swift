import Glibc
import GuestMemory
import HostSystem
import Testing

/// RAM written to a file and mapped from it again.
struct MemoryFileTests {
    private static let low: UInt64 = 1 << 20, all: UInt64 = 5 << 20, fourGiB: UInt64 = 1 << 32

    private func makeMemory() throws -> GuestMemory { try GuestMemory(byteCount: Self.all, lowMemoryEnd: Self.low) }

    private func blocks(of descriptor: CInt) -> Int {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? Int(status.st_blocks) * 512 : -1
    }

    @Test func pagesOfZerosAreHolesAndNeighboursAreWrittenTogether() throws {
        let memory = try makeMemory()
        // Three pages side by side, one of zeros that was touched, one at the end.
        for page in 4..<7 { try memory.store(UInt64(page), at: GuestAddress(UInt64(page) * 4096)) }
        try memory.store(UInt64(0), at: GuestAddress(0x20000))
        try memory.store(UInt8(1), at: GuestAddress(Self.fourGiB + (Self.all - Self.low) - 1))
        let file = try makeMemoryFile(named: "image", byteCount: Int(Self.all) + 8192)
        let descriptor = try #require(memory.descriptor)
        let touched = blocks(of: descriptor)
        let image = try memory.write(to: file.rawValue, at: 8192) { false }
        #expect(image.byteCount == 4 * 4096 && image.writeCount == 2, "\(image)")
        #expect(blocks(of: file.rawValue) == 4 * 4096)
        // Looking at RAM made none of it.
        #expect(blocks(of: descriptor) == touched)
        // Chunks of 2 MiB, the last one shorter, each with the checksum of its bytes.
        #expect(image.checksums.count == 3)
        for (number, checksum) in image.checksums.enumerated() {
            let start = number << 21
            let bytes = try readAll(file.rawValue, at: UInt64(8192 + start), count: min(2 << 20, Int(Self.all) - start), named: "image")
            #expect(Checksum.of(bytes) == checksum, "chunk \(number)")
        }
    }

    @Test func adoptedFileIsReadLazilyAndNeverWritten() throws {
        let memory = try makeMemory()
        try memory.write(Array("low".utf8), at: GuestAddress(0x1000))
        try memory.write(Array("high".utf8), at: GuestAddress(Self.fourGiB))
        let file = try makeMemoryFile(named: "image", byteCount: Int(Self.all))
        let image = try memory.write(to: file.rawValue, at: 0) { false }

        let other = try makeMemory()
        try other.write(Array("gone".utf8), at: GuestAddress(0x3000))
        try other.adopt(file.rawValue, at: 0)
        #expect(try other.bytes(at: GuestAddress(0x1000), count: 3) == Array("low".utf8))
        #expect(try other.bytes(at: GuestAddress(Self.fourGiB), count: 4) == Array("high".utf8))
        #expect(try other.load(UInt32.self, at: GuestAddress(0x3000)) == 0)
        let identity = try FileIdentity(of: file.rawValue)
        #expect(other.isImage(identity) && other.descriptor == nil)
        // It is the guest's from here on; the file stays what it was.
        try other.write(Array("mine".utf8), at: GuestAddress(0x1000))
        #expect(try readAll(file.rawValue, at: 0x1000, count: 3, named: "image") == Array("low".utf8))
        // Written again it is the same but for that.
        let second = try makeMemoryFile(named: "second", byteCount: Int(Self.all))
        let again = try other.write(to: second.rawValue, at: 0) { false }
        #expect(again.checksums[1...] == image.checksums[1...] && again.checksums[0] != image.checksums[0])
        #expect(again.byteCount == image.byteCount)
    }

    @Test func pagesGivenUpAreFreedBeforeAndAfterARestore() throws {
        let memory = try makeMemory()
        try memory.fill(0x5A, at: GuestAddress(0), count: 1 << 20)
        let descriptor = try #require(memory.descriptor)
        let before = blocks(of: descriptor)
        #expect(try memory.giveUp(at: GuestAddress(0), byteCount: 1 << 19))
        #expect(blocks(of: descriptor) == before - (1 << 19))
        #expect(try memory.load(UInt8.self, at: GuestAddress(0)) == 0)
        let file = try makeMemoryFile(named: "image", byteCount: Int(Self.all))
        _ = try memory.write(to: file.rawValue, at: 0) { false }
        let other = try makeMemory()
        try other.adopt(file.rawValue, at: 0)
        try other.fill(0xA5, at: GuestAddress(0), count: 1 << 20)
        #expect(try other.giveUp(at: GuestAddress(0), byteCount: 1 << 19))
        #expect(try other.load(UInt8.self, at: GuestAddress(1 << 19)) == 0xA5)
        #expect(try other.load(UInt8.self, at: GuestAddress(0)) == 0)
        #expect(throws: GuestMemoryFault.self) { _ = try other.giveUp(at: GuestAddress(Self.low), byteCount: 4096) }
    }

    @Test func writingCanBeCalledOffAndAFileThatCannotBeMappedIsRefused() throws {
        let memory = try makeMemory()
        let file = try makeMemoryFile(named: "image", byteCount: Int(Self.all))
        var asked = 0
        #expect(throws: WriteCancelled.self) {
            _ = try memory.write(to: file.rawValue, at: 0) {
                asked += 1
                return asked > 1
            }
        }
        var ends: [CInt] = [0, 0]
        try #require(pipe(&ends) == 0)
        #expect(throws: HostError.self) { try memory.adopt(ends[0], at: 0) }
        for end in ends { close(end) }
        try memory.store(UInt8(7), at: GuestAddress(0))
        #expect(try memory.load(UInt8.self, at: GuestAddress(0)) == 7 && memory.descriptor != nil)
    }
}
