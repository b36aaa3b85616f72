// The ACPI tables of the board (ACPI 6.4 §5.2) and where they go in guest memory.
package import GuestMemory
import MachineCore

/// What the tables have to say.
package struct ACPIDescription: Sendable {
    /// Local APIC ids in the order of the vCPUs.
    package var apicIDs: [UInt32]
    package var hasSerialPort: Bool
    /// RAM above 4 GiB ends here; the 64-bit PCI window starts behind it.
    package var highMemoryEnd: UInt64
    /// Ports 0x60 and 0x64 answer commands. Where they do not, a guest that is told of them polls for half a second.
    package var hasKeyboardController: Bool

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

    /// Bytes of the tables as placed at `base`, and the RSDP's address, which is `base` itself.
    package static func build(_ description: ACPIDescription, at base: UInt64) -> [UInt8] {
        var area = [UInt8](repeating: 0, count: 64)  // the RSDP, 36 bytes, filled last
        func append(_ bytes: [UInt8], alignment: Int = 16) -> UInt64 {
            while area.count % alignment != 0 { area.append(0) }
            area += bytes
            return base + UInt64(area.count - bytes.count)
        }
        let dsdt = append(table("DSDT", revision: 2, DSDT.body(description)))
        let facs = append(facsTable(), alignment: 64)
        let fadt = append(fadtTable(description, dsdt: dsdt, facs: facs))
        let madt = append(table("APIC", revision: 5, madtBody(description)))
        let mcfg = append(table("MCFG", revision: 1, mcfgBody()))
        let waet = append(table("WAET", revision: 1, AML.little(2, 4)))
        let xsdt = append(table("XSDT", revision: 1, [fadt, madt, mcfg, waet].flatMap { AML.little($0, 8) }))
        area.replaceSubrange(0..<36, with: rsdp(xsdt: xsdt))
        return area
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

    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt8 { 0 &- bytes.reduce(0, &+) }

    /// A table with its header (§5.2.6).
    static func table(_ signature: String, revision: UInt8, _ body: [UInt8]) -> [UInt8] {
        var bytes = Array(signature.utf8) + AML.little(UInt64(36 + body.count), 4) + [revision, 0] + oemID + oemTableID
        bytes += AML.little(1, 4) + Array("APUS".utf8) + AML.little(1, 4) + body
        bytes[9] = checksum(bytes)
        return bytes
    }

    private static func rsdp(xsdt: UInt64) -> [UInt8] {
        var bytes = Array("RSD PTR ".utf8) + [0] + oemID + [2] + AML.little(0, 4) + AML.little(36, 4) + AML.little(xsdt, 8) + [0, 0, 0, 0]
        bytes[8] = checksum(bytes[..<20])
        bytes[32] = checksum(bytes)
        return bytes
    }

    private static func facsTable() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 64)
        bytes.replaceSubrange(0..<8, with: Array("FACS".utf8) + AML.little(64, 4))
        bytes[32] = 2
        return bytes
    }

    private static func fadtTable(_ description: ACPIDescription, dsdt: UInt64, facs: UInt64) -> [UInt8] {
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
        let pm = MemoryMap.pmBase
        put(36, facs, 4)
        put(40, dsdt, 4)
        put(46, 9, 2)  // SCI_INT
        put(48, 0xB2, 4)  // SMI_CMD
        put(52, 0x02, 1)  // ACPI_ENABLE
        put(53, 0x03, 1)  // ACPI_DISABLE
        put(56, UInt64(pm), 4)
        put(64, UInt64(pm) + 4, 4)
        put(76, UInt64(pm) + 8, 4)
        put(80, UInt64(MemoryMap.gpe0Base), 4)
        put(88, 4, 1)  // PM1_EVT_LEN
        put(89, 2, 1)  // PM1_CNT_LEN
        put(91, 4, 1)  // PM_TMR_LEN
        put(92, 16, 1)  // GPE0_BLK_LEN
        put(96, 0xFFF, 2)  // P_LVL2_LAT: no C2
        put(98, 0xFFF, 2)
        put(108, 0x32, 1)  // century in CMOS
        put(109, description.hasKeyboardController ? 0b11 : 0b01, 2)  // IAPC_BOOT_ARCH: legacy devices, 8042
        // WBINVD, C1, SLP_BUTTON not fixed, RTC_S4, RESET_REG_SUP, platform clock
        put(112, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 10 | 1 << 15, 4)
        address(116, port: 0xCF9, bits: 8, access: 1)
        put(128, 0x0E, 1)
        put(131, 5, 1)  // FADT minor
        put(132, facs, 8)
        put(140, dsdt, 8)
        address(148, port: pm, bits: 32, access: 2)
        address(172, port: pm + 4, bits: 16, access: 2)
        address(208, port: pm + 8, bits: 32, access: 3)
        address(220, port: MemoryMap.gpe0Base, bits: 128, access: 1)
        return table("FACP", revision: 6, body)
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

    private static func mcfgBody() -> [UInt8] {
        AML.little(0, 8) + AML.little(MemoryMap.ecamBase, 8) + AML.little(0, 2) + [0, 0xFF] + AML.little(0, 4)
    }
}
