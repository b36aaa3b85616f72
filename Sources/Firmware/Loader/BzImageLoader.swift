// The Linux/x86 boot protocol, 64-bit entry (Documentation/x86/boot.rst, "64-bit Boot Protocol"). Protocol 2.12 or later with
// a relocatable kernel that has a 64-bit entry point: every amd64 kernel since 2013.
import GuestMemory
import MachineCore

enum BzImageLoader {
    /// Offsets of setup header fields in the file and in the zero page.
    private enum Field {
        static let setupSectors = 0x1F1
        static let systemSize = 0x1F4
        static let bootFlag = 0x1FE
        static let jump = 0x200
        static let magic = 0x202
        static let version = 0x206
        static let typeOfLoader: UInt64 = 0x210
        static let loadFlags = 0x211
        static let ramdiskImage: UInt64 = 0x218
        static let ramdiskSize: UInt64 = 0x21C
        static let heapEnd: UInt64 = 0x224
        static let commandLinePointer: UInt64 = 0x228
        static let initrdAddressMax = 0x22C
        static let kernelAlignment = 0x230
        static let extendedLoadFlags = 0x236
        static let commandLineSize = 0x238
        static let preferredAddress = 0x258
        static let initSize = 0x260
    }

    /// "HdrS" behind the boot sector's signature.
    static func isImage(_ start: [UInt8]) -> Bool { start.count > 0x206 && Array(start[0x202..<0x206]) == Array("HdrS".utf8) }

    static func load(_ source: BootSource, into memory: GuestMemory) throws(LoaderError) -> BootRegisters {
        let header = try source.kernel.bytes(at: 0, count: 0x1000)
        func number(_ offset: Int, _ byteCount: Int) -> UInt64 {
            var value: UInt64 = 0
            for index in 0..<byteCount where offset + index < header.count {
                value |= UInt64(header[offset + index]) << (UInt64(index) * 8)
            }
            return value
        }
        guard header.count >= 0x268, number(Field.bootFlag, 2) == 0xAA55, number(Field.magic, 4) == 0x5372_6448 else {
            throw LoaderError("kernel", "no bzImage, no ELF file with a PVH entry, no multiboot image")
        }
        let version = number(Field.version, 2)
        guard version >= 0x20C, number(Field.extendedLoadFlags, 2) & 1 != 0 else {
            throw LoaderError("kernel", "boot protocol \(version >> 8).\(version & 0xFF) without a 64-bit entry; an amd64 kernel of Linux 3.8 or later is needed")
        }
        let setupSectors = number(Field.setupSectors, 1)
        let setupByteCount = ((setupSectors == 0 ? 4 : setupSectors) + 1) * 512
        guard source.kernel.byteCount > setupByteCount else { throw LoaderError("kernel", "file ends in its setup code") }
        let payload = source.kernel.byteCount - setupByteCount
        // In paragraphs of 16 bytes; an image that was cut short would start and die while it unpacks itself.
        let wanted = number(Field.systemSize, 4) * 16
        guard wanted < payload + 16 else {
            throw LoaderError("kernel", "file ends \(wanted - payload) bytes early")
        }
        let initSize = number(Field.initSize, 4)
        let address = max(number(Field.preferredAddress, 8), MemoryMap.highMemory)
        let lowEnd = min(memory.byteCount, MemoryMap.lowMemoryEnd)
        let (end, overflow) = address.addingReportingOverflow(max(initSize, payload))
        guard !overflow, end <= lowEnd else {
            throw LoaderError("kernel", "needs memory up to \(address &+ max(initSize, payload)), the guest has \(lowEnd) below 4 GiB; give it more")
        }
        try source.kernel.copy(from: setupByteCount, count: payload, to: memory, at: GuestAddress(address), named: "kernel")

        let writer = LowMemoryWriter(memory: memory, subject: "kernel")
        let page = LoaderAddresses.zeroPage
        try writer.store([UInt8](repeating: 0, count: 4096), at: page)
        // The setup header, from 0x1F1 to the end that its jump instruction tells.
        let headerEnd = min(0x202 + Int(header[0x201]), 0x290, header.count)
        guard headerEnd > Field.setupSectors else { throw LoaderError("kernel", "a setup header that ends before it starts") }
        try writer.store(Array(header[Field.setupSectors..<headerEnd]), at: page + UInt64(Field.setupSectors))
        try writer.store(UInt8(0xFF), at: page + Field.typeOfLoader)
        try writer.store(UInt8(truncatingIfNeeded: number(Field.loadFlags, 1) | 0x80), at: page + UInt64(Field.loadFlags))
        try writer.store(UInt16(0xFE00), at: page + Field.heapEnd)
        try writer.storeCommandLine(source.commandLine, limit: Int(number(Field.commandLineSize, 4)))
        try writer.store(UInt32(LoaderAddresses.commandLine), at: page + Field.commandLinePointer)
        if let initrd = source.initrd {
            let place = try writer.placeInitrd(initrd, below: number(Field.initrdAddressMax, 4) + 1, above: end)
            try writer.store(UInt32(truncatingIfNeeded: place), at: page + Field.ramdiskImage)
            try writer.store(UInt32(truncatingIfNeeded: initrd.byteCount), at: page + Field.ramdiskSize)
        }
        // boot_params: acpi_rsdp_addr at 0x70, e820_entries at 0x1E8, e820_table at 0x2D0.
        try writer.store(source.rsdp.rawValue, at: page + 0x70)
        let ranges = MemoryMap.ranges(memoryByteCount: memory.byteCount)
        try writer.store(UInt8(truncatingIfNeeded: ranges.count), at: page + 0x1E8)
        for (index, range) in ranges.enumerated() {
            let entry = page + 0x2D0 + UInt64(index) * 20
            try writer.store(range.base, at: entry)
            try writer.store(range.byteCount, at: entry + 8)
            try writer.store(range.kind.rawValue, at: entry + 16)
        }
        try writer.storeGDT(isLong: true)
        let root = try writer.storePageTables()
        return BootRegisters(
            mode: .long64, rip: address + 0x200, rsp: LoaderAddresses.stackTop, rsi: page, cr3: root, gdtBase: LoaderAddresses.gdt,
            gdtLimit: 31)
    }
}
