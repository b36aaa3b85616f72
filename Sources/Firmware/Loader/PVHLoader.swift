// The PVH boot protocol (Xen, docs/misc/pvh.pandoc; include/xen/interface/hvm/start_info.h): an ELF file whose notes name a
// 32-bit entry, started in protected mode with a start_info structure in EBX.
import GuestMemory
import MachineCore

enum PVHLoader {
    private static let physicalEntryNote: UInt32 = 18  // XEN_ELFNOTE_PHYS32_ENTRY
    private static let startInfoMagic: UInt32 = 0x336E_C578

    private struct Segment {
        var type: UInt32, offset: UInt64, address: UInt64, fileByteCount: UInt64, memoryByteCount: UInt64
    }

    static func load(_ source: BootSource, into memory: GuestMemory) throws(LoaderError) -> BootRegisters {
        let segments = try programHeaders(of: source.kernel)
        let lowEnd = min(memory.byteCount, MemoryMap.lowMemoryEnd)
        var end: UInt64 = MemoryMap.highMemory
        var entry: UInt32?
        for segment in segments {
            switch segment.type {
            case 1 where segment.memoryByteCount > 0:
                let (segmentEnd, overflow) = segment.address.addingReportingOverflow(segment.memoryByteCount)
                guard !overflow, segment.fileByteCount <= segment.memoryByteCount, segment.address >= MemoryMap.highMemory, segmentEnd <= lowEnd else {
                    throw LoaderError("kernel", "a segment of \(segment.memoryByteCount) bytes at \(segment.address) lies outside the guest's memory")
                }
                // A segment of zeros has nothing in the file.
                if segment.fileByteCount > 0 {
                    try source.kernel.copy(
                        from: segment.offset, count: segment.fileByteCount, to: memory, at: GuestAddress(segment.address), named: "kernel")
                }
                // A segment without such a tail may end where RAM ends, and there is no address behind that.
                let tail = segment.memoryByteCount - segment.fileByteCount
                if tail > 0 {
                    do {
                        try memory.fill(0, at: GuestAddress(segment.address + segment.fileByteCount), count: tail)
                    } catch {
                        throw LoaderError("kernel", "\(error)")
                    }
                }
                end = max(end, segmentEnd)
            case 4: if entry == nil { entry = try entryNote(in: source.kernel, segment) }
            default: break
            }
        }
        guard let entry else { throw LoaderError("kernel", "an ELF file without a PVH entry note (CONFIG_PVH)") }
        let writer = LowMemoryWriter(memory: memory, subject: "kernel")
        try writer.storeCommandLine(source.commandLine, limit: 4095)
        let info = LoaderAddresses.startInfo
        let ranges = MemoryMap.ranges(memoryByteCount: memory.byteCount)
        try writer.store([UInt8](repeating: 0, count: 0x800), at: info)
        try writer.store(startInfoMagic, at: info)
        try writer.store(UInt32(1), at: info + 4)
        try writer.store(LoaderAddresses.commandLine, at: info + 24)
        try writer.store(source.rsdp.rawValue, at: info + 32)
        try writer.store(info + 0x100, at: info + 40)
        try writer.store(UInt32(ranges.count), at: info + 48)
        for (index, range) in ranges.enumerated() {
            let entry = info + 0x100 + UInt64(index) * 24
            try writer.store(range.base, at: entry)
            try writer.store(range.byteCount, at: entry + 8)
            try writer.store(range.kind.rawValue, at: entry + 16)
        }
        if let initrd = source.initrd {
            let place = try writer.placeInitrd(initrd, below: MemoryMap.lowMemoryEnd, above: end)
            try writer.store(UInt32(1), at: info + 12)
            try writer.store(info + 0x80, at: info + 16)
            try writer.store(place, at: info + 0x80)
            try writer.store(initrd.byteCount, at: info + 0x88)
        }
        try writer.storeGDT(isLong: false)
        return BootRegisters(
            mode: .protected32, rip: UInt64(entry), rsp: LoaderAddresses.stackTop, rbx: info, gdtBase: LoaderAddresses.gdt, gdtLimit: 31)
    }

    private static func programHeaders(of file: ImageFile) throws(LoaderError) -> [Segment] {
        let header = ImageFields(try file.bytes(at: 0, count: 64))
        guard header.bytes.count == 64, header.bytes[4] == 2, header.bytes[5] == 1, header.u16(18) == 62 else {
            throw LoaderError("kernel", "not a little-endian 64-bit x86 ELF file")
        }
        let count = Int(header.u16(56)), size = Int(header.u16(54))
        guard (1...64).contains(count), (56...256).contains(size) else {
            throw LoaderError("kernel", "\(count) program headers of \(size) bytes")
        }
        let table = ImageFields(try file.bytes(at: header.u64(32), count: count * size))
        guard table.bytes.count == count * size else { throw LoaderError("kernel", "file ends in its program headers") }
        return (0..<count).map { index in
            let at = index * size
            return Segment(
                type: table.u32(at), offset: table.u64(at + 8), address: table.u64(at + 24), fileByteCount: table.u64(at + 32),
                memoryByteCount: table.u64(at + 40))
        }
    }

    private static func entryNote(in file: ImageFile, _ segment: Segment) throws(LoaderError) -> UInt32? {
        let notes = ImageFields(try file.bytes(at: segment.offset, count: Int(min(segment.fileByteCount, 1 << 16))))
        var at = 0
        while at + 12 <= notes.bytes.count {
            let nameCount = Int(notes.u32(at)), dataCount = Int(notes.u32(at + 4)), type = notes.u32(at + 8)
            let name = at + 12
            let data = name + (nameCount + 3) & ~3
            guard data >= name, data <= notes.bytes.count, dataCount <= notes.bytes.count - data else { return nil }
            if type == physicalEntryNote, nameCount == 4, Array(notes.bytes[name..<(name + 4)]) == [0x58, 0x65, 0x6E, 0], dataCount >= 4 {
                return notes.u32(data)
            }
            at = data + (dataCount + 3) & ~3
        }
        return nil
    }
}
