import Firmware
import Glibc
import GuestMemory
import MachineCore
import Testing

struct LoaderTests {
    private func file(_ bytes: [UInt8]) throws -> ImageFile {
        let stream = try #require(tmpfile())
        fwrite(bytes, 1, bytes.count, stream)
        fflush(stream)
        return try ImageFile(descriptor: dup(fileno(stream)), named: "kernel")
    }

    /// The smallest bzImage that protocol 2.12 allows: one setup sector, a payload of 4096 bytes.
    private func bzImage() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 1024 + 4096)
        func put(_ offset: Int, _ value: UInt64, _ count: Int) { for i in 0..<count { bytes[offset + i] = UInt8(truncatingIfNeeded: value >> (UInt64(i) * 8)) } }
        put(0x1F1, 1, 1)
        put(0x1FE, 0xAA55, 2)
        put(0x200, 0x66EB, 2)
        put(0x202, 0x5372_6448, 4)
        put(0x206, 0x20F, 2)
        put(0x22C, 0x7FFF_FFFF, 4)
        put(0x236, 1, 2)
        put(0x238, 2047, 4)
        put(0x258, 0x100_0000, 8)
        put(0x260, 0x10_0000, 4)
        return bytes
    }

    private func source(_ kernel: [UInt8], initrd: [UInt8]? = nil, commandLine: String = "quiet") throws -> BootSource {
        BootSource(kernel: try file(kernel), initrd: try initrd.map { try file($0) }, commandLine: commandLine, rsdp: GuestAddress(0xE0000))
    }

    @Test func bzImageStartsAtItsEntryWithCommandLineAndMemoryMap() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        let boot = try loadKernel(try source(bzImage(), initrd: [1, 2, 3]), into: memory)
        #expect(boot.mode == .long64 && boot.rip == 0x100_0200)
        let text = UInt64(try memory.load(UInt32.self, at: GuestAddress(boot.rsi + 0x228)))
        #expect(try memory.bytes(at: GuestAddress(text), count: 6) == Array("quiet\0".utf8))
        #expect(try memory.load(UInt64.self, at: GuestAddress(boot.rsi + 0x70)) == 0xE0000)
        let initrd = UInt64(try memory.load(UInt32.self, at: GuestAddress(boot.rsi + 0x218)))
        #expect(initrd == (64 << 20) - 4096)
        #expect(try memory.bytes(at: GuestAddress(initrd), count: 3) == [1, 2, 3])
        let lines = try memory.load(UInt8.self, at: GuestAddress(boot.rsi + 0x1E8))
        #expect(Int(lines) == MemoryMap.ranges(memoryByteCount: 64 << 20).count)
    }

    @Test func everyPrefixOfAKernelIsRefusedInWords() throws {
        let whole = bzImage()
        let memory = try GuestMemory(byteCount: 64 << 20)
        for count in stride(from: 0, to: 0x268, by: 17) {
            #expect(throws: LoaderError.self) { try loadKernel(try source(Array(whole[..<count])), into: memory) }
        }
    }

    @Test func kernelLargerThanMemoryIsRefused() throws {
        let memory = try GuestMemory(byteCount: 16 << 20)
        #expect(throws: LoaderError.self) { try loadKernel(try source(bzImage()), into: memory) }
    }

    @Test func commandLineOverTheKernelsLimitIsRefused() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        #expect(throws: LoaderError.self) { try loadKernel(try source(bzImage(), commandLine: String(repeating: "x", count: 2048)), into: memory) }
    }

    @Test func randomBytesBehindAnELFMagicNeverTrap() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            var bytes = (0..<512).map { _ in UInt8.random(in: 0...255, using: &generator) }
            bytes.replaceSubrange(0..<6, with: [0x7F, 0x45, 0x4C, 0x46, 2, 1])
            bytes.replaceSubrange(18..<20, with: [62, 0])
            bytes.replaceSubrange(32..<40, with: [64, 0, 0, 0, 0, 0, 0, 0])
            bytes.replaceSubrange(54..<58, with: [56, 0, 4, 0])
            #expect(throws: LoaderError.self) { try loadKernel(try source(bytes), into: memory) }
        }
    }

    @Test func memoryMapIsAscendingAndWithoutOverlap() {
        for mib: UInt64 in [64, 2816, 2817, 6144] {
            let ranges = MemoryMap.ranges(memoryByteCount: mib << 20)
            for (left, right) in zip(ranges, ranges.dropFirst()) { #expect(left.base + left.byteCount <= right.base) }
            let ram = ranges.filter { $0.kind == .ram }.reduce(0) { $0 + $1.byteCount }
            #expect(ram == (mib << 20) - (0x10_0000 - MemoryMap.conventionalEnd))
        }
    }
}
