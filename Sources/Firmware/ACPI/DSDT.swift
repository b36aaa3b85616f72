// The board's devices in AML: the PCI root with its windows and interrupt routing, the ISA devices, processors, S5.

enum DSDT {
    static func body(_ description: ACPIDescription) -> [UInt8] {
        AML.scope("\\_SB_", processors(description.apicIDs.count), pciRoot(description), reserved(description), isa(description))
            + InterruptLinks.body(description.routing)
            + AML.define("\\_S5_", AML.package_([AML.integer(0), AML.integer(0), AML.integer(0), AML.integer(0)]))
    }

    private static func processors(_ count: Int) -> [UInt8] {
        (0..<count).flatMap { index -> [UInt8] in
            let digits = Array("0123456789ABCDEF")
            let name = "C" + String([digits[index >> 8 & 15], digits[index >> 4 & 15], digits[index & 15]])
            return AML.device(name, AML.define("_HID", AML.string("ACPI0007")), AML.define("_UID", AML.integer(UInt64(index))))
        }
    }

    private static func pciRoot(_ description: ACPIDescription) -> [UInt8] {
        let wide = MemoryMap.widePCIWindow(highMemoryEnd: description.highMemoryEnd)
        let windows = description.windows.flatMap { AML.memoryWindow($0.lowerBound, $0.upperBound) }
        let resources = AML.define(
            "_CRS",
            AML.resources(
                AML.busNumbers(0, 0xFF), AML.ioPorts(0xCF8, count: 8), AML.portWindow(0, 0xCF7), AML.portWindow(0xD00, MemoryMap.pciPortWindowEnd),
                AML.memoryWindow(0xA_0000, 0xB_FFFF), windows, AML.memoryWindow64(wide.lowerBound, wide.upperBound)))
        let identity =
            description.ecamBase == nil
            ? AML.define("_HID", AML.eisaID("PNP0A03"))
            : AML.define("_HID", AML.eisaID("PNP0A08")) + AML.define("_CID", AML.eisaID("PNP0A03")) + operatingSystemCapabilities()
        return AML.device(
            "PCI0", identity, AML.define("_UID", AML.integer(0)), AML.define("_SEG", AML.integer(0)), AML.define("_BBN", AML.integer(0)), resources,
            InterruptLinks.routingTable(description.routing))
    }

    /// _OSC (PCI Firmware 3.3 §4.5.1): what is asked of native PCIe is granted, for nothing of it is kept by firmware; any other
    /// UUID is answered as unknown (bit 2 of the status).
    private static func operatingSystemCapabilities() -> [UInt8] {
        AML.method(
            "_OSC", arguments: 4, isSerialized: true,
            AML.if_(AML.equal(AML.argument(0), AML.uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766")), AML.return_(AML.argument(3))),
            AML.doubleWordField("CDW1", of: AML.argument(3), at: 0),
            AML.or(AML.name("CDW1"), AML.integer(4), into: AML.name("CDW1")),
            AML.return_(AML.argument(3)))
    }

    /// What no driver may claim: configuration space, KVM's pages, the power management ports.
    private static func reserved(_ description: ACPIDescription) -> [UInt8] {
        var resources: [UInt8] = []
        if let base = description.ecamBase { resources += AML.fixedMemory(UInt32(truncatingIfNeeded: base), byteCount: UInt32(MemoryMap.ecamByteCount)) }
        resources += AML.fixedMemory(UInt32(MemoryMap.kvmReserved), byteCount: UInt32(MemoryMap.kvmReservedByteCount))
        resources += AML.ioPorts(description.pmBase, count: description.routing == .ich9 ? 0x80 : 0x40)
        if description.gpe0Base &- description.pmBase >= 0x80 { resources += AML.ioPorts(description.gpe0Base, count: description.gpe0ByteCount) }
        return AML.device(
            "RSVD", AML.define("_HID", AML.eisaID("PNP0C02")), AML.define("_UID", AML.integer(1)),
            AML.define("_CRS", AML.resources(resources, AML.ioPorts(0xB2, count: 2))))
    }

    private static func isa(_ description: ACPIDescription) -> [UInt8] {
        var devices = AML.device(
            "RTC_", AML.define("_HID", AML.eisaID("PNP0B00")), AML.define("_CRS", AML.resources(AML.ioPorts(0x70, count: 2), AML.irq(8))))
        if description.hasKeyboardController {
            devices += AML.device(
                "PS2K", AML.define("_HID", AML.eisaID("PNP0303")),
                AML.define("_CRS", AML.resources(AML.ioPorts(0x60, count: 1), AML.ioPorts(0x64, count: 1), AML.irq(1))))
        }
        if description.hasMouse {
            devices += AML.device("PS2M", AML.define("_HID", AML.eisaID("PNP0F13")), AML.define("_CRS", AML.resources(AML.irq(12))))
        }
        if description.hasSerialPort {
            devices += AML.device(
                "COM1", AML.define("_HID", AML.eisaID("PNP0501")), AML.define("_UID", AML.integer(1)),
                AML.define("_CRS", AML.resources(AML.ioPorts(0x3F8, count: 8), AML.irq(4))))
        }
        if description.hasHPET {
            devices += AML.device(
                "HPET", AML.define("_HID", AML.eisaID("PNP0103")), AML.define("_UID", AML.integer(0)),
                AML.define("_CRS", AML.resources(AML.fixedMemory(UInt32(MemoryMap.hpet), byteCount: 0x400))))
        }
        if description.hasPanicPort {
            devices += AML.device(
                "PEVT", AML.define("_HID", AML.string("QEMU0001")), AML.define("_STA", AML.integer(0x0F)),
                AML.define("_CRS", AML.resources(AML.ioPorts(0x505, count: 1))))
        }
        if description.floppyDriveCount > 0 {
            // _FDE (§9.9.1): a double word for each of four drives, then one for a tape drive.
            let drives = (0..<5).flatMap { AML.little($0 < description.floppyDriveCount ? 1 : 0, 4) }
            devices += AML.device(
                "FDC0", AML.define("_HID", AML.eisaID("PNP0700")), AML.define("_FDE", AML.buffer(drives)),
                AML.define(
                    "_CRS", AML.resources(AML.ioPorts(0x3F2, count: 4), AML.ioPorts(0x3F7, count: 1), AML.irq(6), AML.dma(2))))
        }
        if description.hasFirmwareConfiguration {
            devices += AML.device(
                "FWCF", AML.define("_HID", AML.string("QEMU0002")), AML.define("_STA", AML.integer(0x0B)),
                AML.define("_CRS", AML.resources(AML.ioPorts(0x510, count: 12))))
        }
        return devices
    }
}
