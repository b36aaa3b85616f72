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

    private static func little(_ values: UInt32...) -> [UInt8] { values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } } }

    /// A header at 0x20 that places the file at 1 MiB and 4 KiB of zeroes behind it, and "code" behind the header.
    private func multiboot(flags: UInt32 = 0x1_0003) -> [UInt8] {
        let magic: UInt32 = 0x1BAD_B002, load: UInt32 = 0x10_0000
        return [UInt8](repeating: 0xAA, count: 0x20) + Self.little(magic, flags, 0 &- magic &- flags, load + 0x20, load, 0, load + 0x2000, load + 0x40)
            + [0x11, 0x22, 0x33] + [UInt8](repeating: 0x44, count: 0xFBD)
    }

    @Test func aMultibootImageIsPlacedByItsHeaderAndToldOfMemoryCommandLineAndModule() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        try memory.fill(0xEE, at: GuestAddress(0x10_0000), count: 0x4000)
        let boot = try loadKernel(try source(multiboot(), initrd: [7, 8, 9], commandLine: "a=b"), into: memory)
        #expect(boot.mode == .protected32 && boot.rip == 0x10_0040 && boot.rax == 0x2BAD_B002)
        #expect(try memory.bytes(at: GuestAddress(0x10_0040), count: 3) == [0x11, 0x22, 0x33])
        let end = UInt64(multiboot().count)
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x10_0000 + end - 1)) == 0x44 && memory.load(UInt8.self, at: GuestAddress(0x10_0000 + end)) == 0)
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x10_1FFF)) == 0 && memory.load(UInt8.self, at: GuestAddress(0x10_2000)) == 0xEE)
        func number(_ address: UInt64) throws -> UInt64 { UInt64(try memory.load(UInt32.self, at: GuestAddress(address))) }
        func text(_ address: UInt64, _ expected: String) throws -> Bool {
            try memory.bytes(at: GuestAddress(address), count: expected.utf8.count + 1) == Array(expected.utf8) + [0]
        }
        let information = boot.rbx
        #expect(try number(information) == 0x24D && number(information + 4) == 639 && number(information + 8) == 63 << 10)
        #expect(try text(number(information + 16), "kernel a=b") && text(number(information + 64), "Apus"))
        #expect(try number(information + 20) == 1)
        let module = try number(information + 24), start = try number(module)
        #expect(try memory.bytes(at: GuestAddress(start), count: 3) == [7, 8, 9] && number(module + 4) == start + 3 && start & 0xFFF == 0)
        #expect(try text(number(module + 8), ""))
        let map = try number(information + 48), ranges = MemoryMap.ranges(memoryByteCount: 64 << 20)
        #expect(try number(information + 44) == UInt64(24 * ranges.count) && number(map) == 20 && number(map + 20) == 1)
        #expect(try number(map + 24 + 4) == MemoryMap.conventionalEnd)
    }

    /// An ELF file of one segment, linked 3 GiB above where it is loaded.
    private func multibootELF(machine: UInt8 = 3) -> [UInt8] {
        let magic: UInt32 = 0x1BAD_B002
        var bytes: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 1, 1, 1] + [UInt8](repeating: 0, count: 9) + [2, 0, machine, 0] + Self.little(1, 0xC010_000C, 52, 0, 0)
        bytes += [52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        bytes += Self.little(1, 84, 0xC010_0000, 0x10_0000, 16, 0x100, 5, 4)
        return bytes + Self.little(magic, 0, 0 &- magic) + [0xF4, 0xEB, 0xFD, 0x90]
    }

    @Test func anELFImageOf32BitsStartsAtThePhysicalAddressOfItsEntry() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        let boot = try loadKernel(try source(multibootELF(), commandLine: ""), into: memory)
        #expect(boot.mode == .protected32 && boot.rip == 0x10_000C)
        #expect(try memory.bytes(at: GuestAddress(0x10_000C), count: 5) == [0xF4, 0xEB, 0xFD, 0x90, 0])
        #expect(try memory.load(UInt32.self, at: GuestAddress(boot.rbx + 20)) == 0)
        #expect(throws: LoaderError.self) { try loadKernel(try source(multibootELF(machine: 62)), into: memory) }
    }

    @Test func aMultibootImageThatCannotBeStartedIsRefusedInWords() throws {
        let memory = try GuestMemory(byteCount: 4 << 20)
        let unknown = #expect(throws: LoaderError.self) { try loadKernel(try source(multiboot(flags: 0x1_0013)), into: memory) }
        #expect("\(unknown as Any)".contains("0x10"))
        // Below 1 MiB, beyond RAM, an end before the start, a header outside of what is loaded.
        for (at, value) in [(0x30, 0x8_0000), (0x30, 0x3F_F800), (0x34, 0x0F_0000), (0x38, 0x0F_0000), (0x2C, 0x0F_0000), (0x2C, 0x10_0040)] as [(Int, UInt32)] {
            var bytes = multiboot()
            bytes.replaceSubrange(at..<(at + 4), with: Self.little(value))
            if value == 0x3F_F800 { bytes.replaceSubrange(0x2C..<0x30, with: Self.little(value + 0x20)) }
            #expect(throws: LoaderError.self, "\(at) \(value)") { try loadKernel(try source(bytes), into: memory) }
        }
    }

    @Test func randomMultibootHeadersNeverTrap() throws {
        let memory = try GuestMemory(byteCount: 16 << 20)
        for _ in 0..<500 {
            var image = Bool.random() ? multiboot() : multibootELF()
            let fields = image.count > 200 ? 0x2C..<0x40 : 16..<84
            for _ in 0..<Int.random(in: 1...6) { image[Int.random(in: fields)] = [0, 1, 0x7F, 0x80, 0xFF, .random(in: 0...255)].randomElement() ?? 0 }
            _ = try? loadKernel(try source(image, initrd: [1]), into: memory)
        }
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

    /// A kernel's size in its own header, so that a file cut short is noticed.
    @Test func kernelShorterThanItsHeaderSaysIsRefused() throws {
        var whole = bzImage()
        whole.replaceSubrange(0x1F4..<0x1F8, with: [0x00, 0x01, 0, 0])  // 256 paragraphs: 4096 bytes
        let memory = try GuestMemory(byteCount: 64 << 20)
        _ = try loadKernel(try source(whole), into: memory)
        #expect(throws: LoaderError.self) { try loadKernel(try source(Array(whole.dropLast(16))), into: memory) }
    }

    @Test func randomBytesInTheSetupHeaderNeverTrap() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            var bytes = bzImage()
            for _ in 0..<4 { bytes[.random(in: 0x1F1..<0x268, using: &generator)] = .random(in: 0...255, using: &generator) }
            do { _ = try loadKernel(try source(bytes, initrd: [1]), into: memory) } catch is LoaderError {}
        }
    }

    @Test func initrdLargerThanWhatIsLeftIsRefused() throws {
        let memory = try GuestMemory(byteCount: 32 << 20)
        let initrd = [UInt8](repeating: 7, count: (15 << 20) + 1)
        #expect(throws: LoaderError.self) { try loadKernel(try source(bzImage(), initrd: initrd), into: memory) }
    }

    // MARK: PVH

    private static let load: UInt64 = 16 << 20

    /// An ELF file with one segment to load and a note that names its entry.
    private func pvh(address: UInt64 = LoaderTests.load, memoryByteCount: UInt64 = 0x3000, entry: UInt32 = 0x0100_0040) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 0x1000 + 0x1000)
        func put(_ offset: Int, _ value: UInt64, _ count: Int) { for i in 0..<count { bytes[offset + i] = UInt8(truncatingIfNeeded: value >> (UInt64(i) * 8)) } }
        bytes.replaceSubrange(0..<7, with: [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1])
        put(16, 2, 2)
        put(18, 62, 2)
        put(32, 64, 8)
        put(54, 56, 2)
        put(56, 2, 2)
        for (index, (type, offset, at, inFile, inMemory)) in [(1, 0x1000, address, 0x1000, memoryByteCount), (4, 0x200, 0, 32, 32)].enumerated() as EnumeratedSequence<[(UInt64, UInt64, UInt64, UInt64, UInt64)]> {
            let header = 64 + index * 56
            for (field, value) in [(0, type), (8, offset), (16, at), (24, at), (32, inFile), (40, inMemory)] { put(header + field, value, field == 0 ? 4 : 8) }
        }
        put(0x200, 4, 4)
        put(0x204, 4, 4)
        put(0x208, 18, 4)
        bytes.replaceSubrange(0x20C..<0x210, with: [0x58, 0x65, 0x6E, 0])
        put(0x210, UInt64(entry), 4)
        for index in 0x1000..<0x2000 { bytes[index] = 0xA5 }
        return bytes
    }

    @Test func pvhKernelStartsAtItsNotesEntryWithStartInfo() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        try memory.fill(0xFF, at: GuestAddress(Self.load), count: 0x4000)
        let boot = try loadKernel(try source(pvh(), initrd: [9, 8, 7]), into: memory)
        #expect(boot.mode == .protected32 && boot.rip == 0x0100_0040)
        func word(_ offset: UInt64) throws -> UInt64 { UInt64(try memory.load(UInt32.self, at: GuestAddress(boot.rbx + offset))) }
        func long(_ address: UInt64) throws -> UInt64 { try memory.load(UInt64.self, at: GuestAddress(address)) }
        #expect(try word(0) == 0x336E_C578 && word(4) == 1)
        #expect(try memory.bytes(at: GuestAddress(long(boot.rbx + 24)), count: 6) == Array("quiet\0".utf8))
        #expect(try long(boot.rbx + 32) == 0xE0000)
        let map = try long(boot.rbx + 40), lines = try Int(word(48))
        #expect(lines == MemoryMap.ranges(memoryByteCount: 64 << 20).count)
        #expect(try long(map) == 0 && memory.load(UInt32.self, at: GuestAddress(map + 16)) == 1)
        let module = try long(boot.rbx + 16)
        #expect(try word(12) == 1 && memory.bytes(at: GuestAddress(long(module)), count: 3) == [9, 8, 7] && long(module + 8) == 3)
        #expect(try memory.bytes(at: GuestAddress(Self.load), count: 1) == [0xA5])
        #expect(try memory.bytes(at: GuestAddress(Self.load + 0x1000), count: 0x2000).allSatisfy { $0 == 0 }, "the tail is zero")
        #expect(try memory.bytes(at: GuestAddress(Self.load + 0x3000), count: 1) == [0xFF], "and nothing behind it")
    }

    @Test func segmentThatEndsWhereMemoryEndsIsLoaded() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        _ = try loadKernel(try source(pvh(address: (64 << 20) - 0x1000, memoryByteCount: 0x1000)), into: memory)
        #expect(try memory.bytes(at: GuestAddress((64 << 20) - 1), count: 1) == [0xA5])
    }

    @Test(arguments: [(UInt64(0x1000), UInt64(0x1000)), ((64 << 20) - 0x800, 0x1000), (.max - 0xFFF, 0x1000), (16 << 20, .max), (16 << 20, 0x800)])
    func segmentOutsideMemoryOrLargerInTheFileIsRefused(address: UInt64, memoryByteCount: UInt64) throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        #expect(throws: LoaderError.self) { try loadKernel(try source(pvh(address: address, memoryByteCount: memoryByteCount)), into: memory) }
    }

    @Test func everyPrefixAndRandomDamageOfAPVHKernelIsRefusedOrLoaded() throws {
        let whole = pvh(), memory = try GuestMemory(byteCount: 64 << 20)
        for count in stride(from: 4, to: whole.count, by: 61) {
            #expect(throws: LoaderError.self) { try loadKernel(try source(Array(whole[..<count])), into: memory) }
        }
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            var bytes = whole
            for _ in 0..<4 { bytes[.random(in: 4..<0x220, using: &generator)] = .random(in: 0...255, using: &generator) }
            do { _ = try loadKernel(try source(bytes), into: memory) } catch is LoaderError {}
        }
    }
}
