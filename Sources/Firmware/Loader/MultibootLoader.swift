// Multiboot 1 images (Multiboot Specification 0.6.96): a header in the first 8 KiB, an ELF file of 32 bits or the addresses in the
// header, started in protected mode with EBX on a structure that has the memory map, the command line and the modules.
//
// As other monitors do, the command line has a program's name before it, which is `kernel` here, and the RAM disk is the one module.
import GuestMemory
import MachineCore

enum MultibootLoader {
    private static let headerMagic: UInt32 = 0x1BAD_B002, bootMagic: UInt64 = 0x2BAD_B002
    /// Where a header must lie, whole.
    private static let searchByteCount = 8192
    private enum Flag {
        /// Addresses instead of ELF.
        static let addresses: UInt32 = 1 << 16
        /// Requirements that a loader must refuse where it cannot meet them.
        static let required: UInt32 = 0xFFFF
        /// Modules on page boundaries, and memory information. There is no display whose modes could be told (bit 2).
        static let known: UInt32 = 1 << 0 | 1 << 1
    }
    /// Of the information structure: memory, command line, modules, memory map, loader's name.
    private static let informationFlags: UInt32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    private static let programName = "kernel"

    private struct Header {
        let offset: Int, flags: UInt32
        /// header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr; zeroes without `Flag.addresses`.
        let addresses: [UInt32]
    }

    /// Whether these first bytes of a file have a header.
    static func isImage(_ start: [UInt8]) -> Bool { header(in: ImageFields(start)) != nil }

    private static func header(in fields: ImageFields) -> Header? {
        for offset in stride(from: 0, to: min(fields.bytes.count, searchByteCount) - 11, by: 4) where fields.u32(offset) == headerMagic {
            let flags = fields.u32(offset + 4)
            guard headerMagic &+ flags &+ fields.u32(offset + 8) == 0 else { continue }
            let hasAddresses = flags & Flag.addresses != 0
            return Header(offset: offset, flags: flags, addresses: (0..<5).map { hasAddresses ? fields.u32(offset + 12 + 4 * $0) : 0 })
        }
        return nil
    }

    static func load(_ source: BootSource, into memory: GuestMemory) throws(LoaderError) -> BootRegisters {
        guard let header = header(in: ImageFields(try source.kernel.bytes(at: 0, count: searchByteCount))) else {
            throw LoaderError("kernel", "an ELF file of 32 bits without a multiboot header")
        }
        let unknown = header.flags & Flag.required & ~Flag.known
        guard unknown == 0 else { throw LoaderError("kernel", "its multiboot header asks for what is not known here (flags 0x\(String(unknown, radix: 16)))") }
        let (entry, end) =
            header.flags & Flag.addresses != 0 ? try loadByAddresses(header, source.kernel, memory) : try loadELF(source.kernel, memory)
        try storeInformation(source, above: end, memory)
        return BootRegisters(
            mode: .protected32, rip: UInt64(entry), rsp: LoaderAddresses.stackTop, rax: bootMagic, rbx: LoaderAddresses.startInfo,
            gdtBase: LoaderAddresses.gdt, gdtLimit: 31)
    }

    /// Puts part of the file at an address above 1 MiB, zeroes behind it up to `byteCount`; the end is the answer.
    private static func place(
        _ file: ImageFile, from offset: UInt64, _ fileByteCount: UInt64, at address: UInt64, _ byteCount: UInt64, _ memory: GuestMemory
    ) throws(LoaderError) -> UInt64 {
        // All of them have 32 bits, so that no sum wraps.
        guard address >= MemoryMap.highMemory, fileByteCount <= byteCount, address + byteCount <= min(memory.byteCount, MemoryMap.lowMemoryEnd) else {
            throw LoaderError("kernel", "\(byteCount) bytes at \(address) lie outside the guest's memory above 1 MiB")
        }
        if fileByteCount > 0 { try file.copy(from: offset, count: fileByteCount, to: memory, at: GuestAddress(address), named: "kernel") }
        if byteCount > fileByteCount {
            do {
                try memory.fill(0, at: GuestAddress(address + fileByteCount), count: byteCount - fileByteCount)
            } catch {
                throw LoaderError("kernel", "\(error)")
            }
        }
        return address + byteCount
    }

    private static func loadByAddresses(_ header: Header, _ file: ImageFile, _ memory: GuestMemory) throws(LoaderError) -> (entry: UInt32, end: UInt64) {
        let place = UInt64(header.addresses[0]), load = UInt64(header.addresses[1]), loadEnd = UInt64(header.addresses[2])
        let end = UInt64(header.addresses[3])
        guard load <= place, place - load <= UInt64(header.offset) else { throw LoaderError("kernel", "its multiboot header lies outside of what it loads") }
        let offset = UInt64(header.offset) - (place - load)
        guard loadEnd == 0 || loadEnd >= load, file.byteCount > offset, file.byteCount - offset <= UInt64(UInt32.max) else {
            throw LoaderError("kernel", "its multiboot header names an end before the start")
        }
        let fileByteCount = loadEnd == 0 ? file.byteCount - offset : loadEnd - load
        let byteCount = end == 0 ? fileByteCount : end > load ? end - load : 0
        return (header.addresses[4], try self.place(file, from: offset, fileByteCount, at: load, byteCount, memory))
    }

    /// The segments of an ELF file of 32 bits (System V ABI, chapter 5), at their physical addresses.
    private static func loadELF(_ file: ImageFile, _ memory: GuestMemory) throws(LoaderError) -> (entry: UInt32, end: UInt64) {
        let header = ImageFields(try file.bytes(at: 0, count: 52))
        // Class 1, little-endian, EM_386.
        guard header.bytes.count == 52, Array(header.bytes[..<6]) == [0x7F, 0x45, 0x4C, 0x46, 1, 1], header.u16(18) == 3 else {
            throw LoaderError("kernel", "a multiboot image that is no little-endian 32-bit x86 ELF file; convert it to elf32-i386")
        }
        let count = Int(header.u16(44)), size = Int(header.u16(42))
        guard (1...64).contains(count), (32...256).contains(size) else { throw LoaderError("kernel", "\(count) program headers of \(size) bytes") }
        let table = ImageFields(try file.bytes(at: UInt64(header.u32(28)), count: count * size))
        guard table.bytes.count == count * size else { throw LoaderError("kernel", "file ends in its program headers") }
        var entry = header.u32(24)
        var end = MemoryMap.highMemory, hasSegment = false
        for at in stride(from: 0, to: count * size, by: size) where table.u32(at) == 1 && table.u32(at + 20) > 0 {
            let virtual = table.u32(at + 8), physical = table.u32(at + 12), byteCount = table.u32(at + 20)
            end = max(end, try place(file, from: UInt64(table.u32(at + 4)), UInt64(table.u32(at + 16)), at: UInt64(physical), UInt64(byteCount), memory))
            // The entry is a virtual address; the processor starts without paging.
            if header.u32(24) >= virtual, header.u32(24) - virtual < byteCount { entry = physical &+ (header.u32(24) - virtual) }
            hasSegment = true
        }
        guard hasSegment else { throw LoaderError("kernel", "an ELF file that loads nothing") }
        return (entry, end)
    }

    /// The information structure (§3.3), with what it points to in the rest of its page.
    private static func storeInformation(_ source: BootSource, above end: UInt64, _ memory: GuestMemory) throws(LoaderError) {
        let writer = LowMemoryWriter(memory: memory, subject: "kernel")
        let information = LoaderAddresses.startInfo, module = information + 0x80, name = information + 0xC0, map = information + 0x100
        try writer.storeCommandLine(source.commandLine.isEmpty ? programName : programName + " " + source.commandLine, limit: 4095)
        try writer.store([UInt8](repeating: 0, count: 0x800), at: information)
        try writer.store(informationFlags, at: information)
        // KiB from 0 and from 1 MiB.
        try writer.store(UInt32(MemoryMap.conventionalEnd >> 10), at: information + 4)
        let low = min(memory.byteCount, MemoryMap.lowMemoryEnd)
        try writer.store(UInt32(truncatingIfNeeded: (low - MemoryMap.highMemory) >> 10), at: information + 8)
        try writer.store(UInt32(LoaderAddresses.commandLine), at: information + 16)
        if let initrd = source.initrd {
            let place = try writer.placeInitrd(initrd, below: MemoryMap.lowMemoryEnd, above: end)
            try writer.store(UInt32(1), at: information + 20)
            try writer.store(UInt32(module), at: information + 24)
            try writer.store(UInt32(truncatingIfNeeded: place), at: module)
            try writer.store(UInt32(truncatingIfNeeded: place + initrd.byteCount), at: module + 4)
            // An empty string.
            try writer.store(UInt32(module + 16), at: module + 8)
        }
        let ranges = MemoryMap.ranges(memoryByteCount: memory.byteCount)
        try writer.store(UInt32(ranges.count * 24), at: information + 44)
        try writer.store(UInt32(map), at: information + 48)
        for (index, range) in ranges.enumerated() {
            let entry = map + UInt64(index) * 24
            // The size does not count itself.
            try writer.store(UInt32(20), at: entry)
            try writer.store(range.base, at: entry + 4)
            try writer.store(range.byteCount, at: entry + 12)
            try writer.store(range.kind.rawValue, at: entry + 20)
        }
        try writer.store(Array("Apus".utf8) + [0], at: name)
        try writer.store(UInt32(name), at: information + 64)
        try writer.storeGDT(isLong: false)
    }
}
