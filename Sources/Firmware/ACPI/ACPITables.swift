// The ACPI tables of the board (ACPI 6.4 §5.2) and where they go in guest memory.
package import GuestMemory
import MachineCore

/// What the tables have to say.
package struct ACPIDescription: Sendable {
    /// How the pins of PCI slots reach interrupt inputs.
    package enum InterruptRouting: Sendable {
        /// GSI 16-23 by slot and pin, nothing else: a board without interrupt router.
        case fixed
        /// Four link devices of PIIX3, in both interrupt modes.
        case piix
        /// Eight link devices of ICH9 for the PIC, GSI 16-23 for the I/O APIC.
        case ich9
    }
    /// Local APIC ids in the order of the vCPUs.
    package var apicIDs: [UInt32]
    package var hasSerialPort: Bool
    /// RAM above 4 GiB ends here; the 64-bit PCI window starts behind it.
    package var highMemoryEnd: UInt64
    /// How processors and RAM lie in nodes; nil: no table says.
    package var proximity: ProximityDomains?
    /// Ports 0x60 and 0x64 answer commands. Where they do not, a guest that is told of them polls for half a second.
    package var hasKeyboardController: Bool
    package var hasMouse = false
    /// The timer at `MemoryMap.hpet`.
    package var hasHPET = false
    /// Port 0x505.
    package var hasPanicPort = false
    /// Drives of the floppy controller; 0: there is none.
    package var floppyDriveCount = 0
    /// The generation id, in a page that firmware places, or at `MemoryMap.generationPage`.
    package var hasGenerationID = false
    /// fw_cfg's ports are there.
    package var hasFirmwareConfiguration = false
    package var routing = InterruptRouting.fixed
    /// The power management block, and general-purpose events with their length in bytes.
    package var pmBase = MemoryMap.pmBase
    package var gpe0Base = MemoryMap.gpe0Base
    package var gpe0ByteCount: UInt8 = 16
    /// What SMI_CMD takes to enter and leave ACPI mode.
    package var acpiEnable: UInt8 = 0x02, acpiDisable: UInt8 = 0x03
    /// PCI Express configuration space; nil: there is none.
    package var ecamBase: UInt64? = MemoryMap.ecamBase
    /// Where BARs below 4 GiB may be.
    package var windows: [ClosedRange<UInt32>] = [UInt32(MemoryMap.pciWindow)...UInt32(MemoryMap.pciWindowEnd - 1)]

    package init(apicIDs: [UInt32], hasSerialPort: Bool, highMemoryEnd: UInt64, hasKeyboardController: Bool = false) {
        self.apicIDs = apicIDs
        self.hasSerialPort = hasSerialPort
        self.hasKeyboardController = hasKeyboardController
        self.highMemoryEnd = highMemoryEnd
    }
}

package enum ACPITables {
    private static let oemID = Array("APUS  ".utf8)
    private static let oemTableID = Array("APUSVMM ".utf8)

    /// All tables but the RSDP; the offsets of RSDT and XSDT.
    private static func image(_ description: ACPIDescription) -> (image: TableImage, rsdt: Int, xsdt: Int, generation: Int?) {
        var image = TableImage()
        let facs = image.append(facsTable(), alignment: 64)
        let dsdt = image.append("DSDT", revision: 2, DSDT.body(description))
        let fadt = image.append(
            "FACP", revision: 6, fadtBody(description), targets: [(36, facs, 4), (40, dsdt, 4), (132, facs, 8), (140, dsdt, 8)])
        var tables = [fadt, image.append("APIC", revision: 5, madtBody(description))]
        if let base = description.ecamBase { tables.append(image.append("MCFG", revision: 1, mcfgBody(base))) }
        if description.hasHPET { tables.append(image.append("HPET", revision: 1, hpetBody())) }
        tables.append(image.append("WAET", revision: 1, AML.little(2, 4)))
        if let proximity = description.proximity {
            tables.append(image.append("SRAT", revision: 3, proximity.affinityBody(apicIDs: description.apicIDs)))
            tables.append(image.append("SLIT", revision: 1, proximity.localityBody))
        }
        var generation: Int?
        if description.hasGenerationID {
            let table = image.append("SSDT", revision: 2, GenerationTable.body())
            tables.append(table)
            generation = table + GenerationTable.pointerOffset
        }
        func root(_ signature: String, _ width: Int) -> Int {
            image.append(
                signature, revision: 1, [UInt8](repeating: 0, count: tables.count * width),
                targets: tables.enumerated().map { (36 + $0.offset * width, $0.element, width) })
        }
        let rsdt = root("RSDT", 4), xsdt = root("XSDT", 8)
        return (image, rsdt, xsdt, generation)
    }

    /// Bytes of the tables as placed at `base`, and the RSDP's address, which is `base` itself.
    package static func build(_ description: ACPIDescription, at base: UInt64) -> [UInt8] {
        var (image, rsdt, xsdt, generation) = image(description)
        if let generation { image.put(MemoryMap.generationPage, at: generation, byteCount: 4) }
        // The RSDP, 36 bytes, comes first, on a boundary that keeps FACS on its own.
        let start = base + 64
        var root = rsdp(rsdt: start + UInt64(rsdt), xsdt: start + UInt64(xsdt))
        root[8] = checksum(root[..<20])
        root[32] = checksum(root)
        return root + [UInt8](repeating: 0, count: 64 - root.count) + image.placed(at: start)
    }

    /// Puts the tables into the BIOS area; the RSDP's address is the answer.
    package static func place(_ description: ACPIDescription, in memory: GuestMemory) throws(LoaderError) -> GuestAddress {
        let bytes = build(description, at: MemoryMap.biosArea)
        guard UInt64(bytes.count) <= 0x1_0000 else { throw LoaderError("ACPI tables", "\(bytes.count) bytes for \(description.apicIDs.count) processors, 65536 fit") }
        do {
            try memory.write(bytes, at: GuestAddress(MemoryMap.biosArea))
        } catch {
            throw LoaderError("ACPI tables", "\(error)")
        }
        return GuestAddress(MemoryMap.biosArea)
    }

    /// The three files by which firmware gets the tables. Names of fw_cfg.
    package enum File {
        package static let tables = "etc/acpi/tables", rsdp = "etc/acpi/rsdp", loader = "etc/table-loader"
        /// The page with the generation id, and where firmware writes down the id's address.
        package static let generation = "etc/vmgenid_guid", generationAddress = "etc/vmgenid_addr"
    }

    /// For firmware: the tables, the RSDP and the script that joins them, by file name. Their lengths depend on the machine's
    /// description alone, not on where firmware placed things.
    package static func files(_ description: ACPIDescription) -> [String: [UInt8]] {
        let (image, rsdt, xsdt, generation) = image(description)
        var loader = TableLoader()
        loader.allocate(File.rsdp, alignment: 16, zone: .fSegment)
        loader.allocate(File.tables, alignment: 64, zone: .high)
        for pointer in image.pointers { loader.addPointer(in: File.tables, at: pointer.offset, byteCount: pointer.byteCount, to: File.tables) }
        if let generation {
            // The page first: firmware that takes what is pointed at for a table finds zeroes where its header would be.
            loader.allocate(File.generation, alignment: 4096, zone: .high)
            loader.addPointer(in: File.tables, at: generation, byteCount: 4, to: File.generation)
            loader.writePointer(in: File.generationAddress, at: 0, byteCount: 8, to: File.generation, plus: GenerationTable.offsetInPage)
        }
        for sum in image.checksums { loader.addChecksum(in: File.tables, at: sum.offset, start: sum.start, byteCount: sum.byteCount) }
        loader.addPointer(in: File.rsdp, at: 16, byteCount: 4, to: File.tables)
        loader.addPointer(in: File.rsdp, at: 24, byteCount: 8, to: File.tables)
        loader.addChecksum(in: File.rsdp, at: 8, start: 0, byteCount: 20)
        loader.addChecksum(in: File.rsdp, at: 32, start: 0, byteCount: 36)
        return [File.tables: image.bytes, File.rsdp: rsdp(rsdt: UInt64(rsdt), xsdt: UInt64(xsdt)), File.loader: loader.bytes]
    }

    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt8 { 0 &- bytes.reduce(0, &+) }

    /// A table's header (§5.2.6), its checksum still 0.
    static func header(_ signature: String, revision: UInt8, byteCount: Int) -> [UInt8] {
        Array(signature.utf8) + AML.little(UInt64(byteCount), 4) + [revision, 0] + oemID + oemTableID + AML.little(1, 4) + Array("APUS".utf8) + AML.little(1, 4)
    }

    /// Its two checksums still 0.
    private static func rsdp(rsdt: UInt64, xsdt: UInt64) -> [UInt8] {
        Array("RSD PTR ".utf8) + [0] + oemID + [2] + AML.little(rsdt, 4) + AML.little(36, 4) + AML.little(xsdt, 8) + [0, 0, 0, 0]
    }

    private static func facsTable() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 64)
        bytes.replaceSubrange(0..<8, with: Array("FACS".utf8) + AML.little(64, 4))
        bytes[32] = 2
        return bytes
    }

    private static func fadtBody(_ description: ACPIDescription) -> [UInt8] {
        var body = [UInt8](repeating: 0, count: 276 - 36)
        func put(_ offset: Int, _ value: UInt64, _ byteCount: Int) {
            body.replaceSubrange((offset - 36)..<(offset - 36 + byteCount), with: AML.little(value, byteCount))
        }
        func address(_ offset: Int, port: UInt16, bits: UInt64, access: UInt64) {
            put(offset, 1, 1)
            put(offset + 1, bits, 1)
            put(offset + 3, access, 1)
            put(offset + 4, UInt64(port), 8)
        }
        let pm = description.pmBase
        put(46, 9, 2)  // SCI_INT
        put(48, 0xB2, 4)  // SMI_CMD
        put(52, UInt64(description.acpiEnable), 1)
        put(53, UInt64(description.acpiDisable), 1)
        put(56, UInt64(pm), 4)
        put(64, UInt64(pm) + 4, 4)
        put(76, UInt64(pm) + 8, 4)
        put(80, UInt64(description.gpe0Base), 4)
        put(88, 4, 1)  // PM1_EVT_LEN
        put(89, 2, 1)  // PM1_CNT_LEN
        put(91, 4, 1)  // PM_TMR_LEN
        put(92, UInt64(description.gpe0ByteCount), 1)  // GPE0_BLK_LEN
        put(96, 0xFFF, 2)  // P_LVL2_LAT: no C2
        put(98, 0xFFF, 2)
        put(108, 0x32, 1)  // century in CMOS
        put(109, description.hasKeyboardController ? 0b11 : 0b01, 2)  // IAPC_BOOT_ARCH: legacy devices, 8042
        // WBINVD, C1, SLP_BUTTON not fixed, RTC_S4, RESET_REG_SUP, platform clock
        put(112, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 10 | 1 << 15, 4)
        address(116, port: 0xCF9, bits: 8, access: 1)
        put(128, 0x0E, 1)
        put(131, 5, 1)  // FADT minor
        address(148, port: pm, bits: 32, access: 2)
        address(172, port: pm + 4, bits: 16, access: 2)
        address(208, port: pm + 8, bits: 32, access: 3)
        address(220, port: description.gpe0Base, bits: UInt64(description.gpe0ByteCount) * 8, access: 1)
        return body
    }

    private static func madtBody(_ description: ACPIDescription) -> [UInt8] {
        var body = AML.little(MemoryMap.localAPIC, 4) + AML.little(1, 4)  // PCAT_COMPAT
        for (uid, id) in description.apicIDs.enumerated() {
            body +=
                id < 255
                ? [0, 8, UInt8(truncatingIfNeeded: uid), UInt8(truncatingIfNeeded: id)] + AML.little(1, 4)
                : [9, 16, 0, 0] + AML.little(UInt64(id), 4) + AML.little(1, 4) + AML.little(UInt64(uid), 4)
        }
        body += [1, 12, 0, 0] + AML.little(MemoryMap.ioAPIC, 4) + AML.little(0, 4)
        body += [2, 10, 0, 0] + AML.little(2, 4) + AML.little(0, 2)
        for irq: UInt8 in [5, 9, 10, 11] { body += [2, 10, 0, irq] + AML.little(UInt64(irq), 4) + AML.little(0xD, 2) }
        // LINT1 is the NMI of every processor; those numbered 255 and up need a form of their own (§5.2.12.13).
        body += [4, 6, 0xFF] + AML.little(0, 2) + [1]
        if description.apicIDs.contains(where: { $0 >= 255 }) {
            body += [10, 12] + AML.little(0, 2) + AML.little(0xFFFF_FFFF, 4) + [1, 0, 0, 0]
        }
        return body
    }

    /// IA-PC HPET 1.0a §3.2.4: the capabilities' low half, the address, number 0, no minimum tick, no page protection.
    private static func hpetBody() -> [UInt8] { AML.little(0x8086_A201, 4) + [0, 0, 0, 0] + AML.little(MemoryMap.hpet, 8) + [0, 0, 0, 0] }

    private static func mcfgBody(_ base: UInt64) -> [UInt8] {
        AML.little(0, 8) + AML.little(base, 8) + AML.little(0, 2) + [0, 0xFF] + AML.little(0, 4)
    }
}
