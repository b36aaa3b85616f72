// What a loader leaves behind: the state the boot processor starts in.
package import GuestMemory
package import MachineCore

/// What to boot.
package struct BootSource: Sendable {
    package var kernel: ImageFile
    package var initrd: ImageFile?
    package var commandLine: String
    /// Where the RSDP was put.
    package var rsdp: GuestAddress

    package init(kernel: ImageFile, initrd: ImageFile?, commandLine: String, rsdp: GuestAddress) {
        self.kernel = kernel
        self.initrd = initrd
        self.commandLine = commandLine
        self.rsdp = rsdp
    }
}

/// Places a kernel of any kind, told apart by its first bytes: an ELF file of 64 bits starts by PVH, one of 32 bits by multiboot; what
/// is neither ELF nor bzImage may have a multiboot header with addresses.
package func loadKernel(_ source: BootSource, into memory: GuestMemory) throws(LoaderError) -> BootRegisters {
    let start = try source.kernel.bytes(at: 0, count: 8192)
    if start.starts(with: [0x7F, 0x45, 0x4C, 0x46]) {
        return start.count > 4 && start[4] == 1 ? try MultibootLoader.load(source, into: memory) : try PVHLoader.load(source, into: memory)
    }
    if !BzImageLoader.isImage(start), MultibootLoader.isImage(start) { return try MultibootLoader.load(source, into: memory) }
    return try BzImageLoader.load(source, into: memory)
}

/// Low memory that the loaders use, clear of anything a kernel touches before it takes over.
enum LoaderAddresses {
    static let gdt: UInt64 = 0x500
    static let startInfo: UInt64 = 0x6000
    static let zeroPage: UInt64 = 0x7000
    static let pageTables: UInt64 = 0x9000
    static let commandLine: UInt64 = 0x2_0000
    static let commandLineByteCount = 0x1_0000
    static let stackTop: UInt64 = 0x8FF0
}

/// Stores little-endian values and reports a fault as the loader's.
struct LowMemoryWriter {
    let memory: GuestMemory
    let subject: String

    func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at address: UInt64) throws(LoaderError) {
        do {
            try memory.store(value.littleEndian, at: GuestAddress(address))
        } catch {
            throw LoaderError(subject, "\(error)")
        }
    }

    func store(_ bytes: [UInt8], at address: UInt64) throws(LoaderError) {
        do {
            try memory.write(bytes, at: GuestAddress(address))
        } catch {
            throw LoaderError(subject, "\(error)")
        }
    }

    /// Null, null, flat 64- or 32-bit code at 0x10, flat data at 0x18.
    func storeGDT(isLong: Bool) throws(LoaderError) {
        let code: UInt64 = isLong ? 0x00AF_9B00_0000_FFFF : 0x00CF_9B00_0000_FFFF
        for (index, entry) in [0, 0, code, 0x00CF_9300_0000_FFFF].enumerated() {
            try store(entry, at: LoaderAddresses.gdt + UInt64(index) * 8)
        }
    }

    /// Identity maps the first 4 GiB with 2 MiB pages; the root's address is the result.
    func storePageTables() throws(LoaderError) -> UInt64 {
        let root = LoaderAddresses.pageTables
        try store(root + 0x1000 | 3, at: root)
        for gib in UInt64(0)..<4 {
            let directory = root + 0x2000 + gib * 0x1000
            try store(directory | 3, at: root + 0x1000 + gib * 8)
            for entry in UInt64(0)..<512 {
                try store((gib << 30 + entry << 21) | 0x83, at: directory + entry * 8)
            }
        }
        return root
    }

    func storeCommandLine(_ text: String, limit: Int) throws(LoaderError) {
        let bytes = Array(text.utf8) + [0]
        guard bytes.count <= min(limit + 1, LoaderAddresses.commandLineByteCount) else {
            throw LoaderError("command line", "\(bytes.count - 1) bytes, this kernel takes \(limit)")
        }
        guard !bytes.dropLast().contains(0) else { throw LoaderError("command line", "a zero byte in it") }
        try store(bytes, at: LoaderAddresses.commandLine)
    }

    /// Puts the RAM disk at the highest page below `limit` and the end of low RAM.
    func placeInitrd(_ initrd: ImageFile, below limit: UInt64, above floor: UInt64) throws(LoaderError) -> UInt64 {
        let top = min(min(memory.byteCount, MemoryMap.lowMemoryEnd), limit)
        guard initrd.byteCount > 0 else { throw LoaderError("initrd", "the file is empty") }
        guard top > initrd.byteCount else { throw LoaderError("initrd", "\(initrd.byteCount) bytes do not fit below \(top)") }
        let address = (top - initrd.byteCount) & ~0xFFF
        guard address >= floor else {
            throw LoaderError("initrd", "\(initrd.byteCount) bytes do not fit between the kernel's end and \(top); give the guest more memory")
        }
        try initrd.copy(from: 0, count: initrd.byteCount, to: memory, at: GuestAddress(address), named: "initrd")
        return address
    }
}
