// The board's devices in AML: the PCI root with its windows and interrupt routing, the ISA devices, processors, S5.

enum DSDT {
    static func body(_ description: ACPIDescription) -> [UInt8] {
        AML.scope("\\_SB_", processors(description.apicIDs.count), pciRoot(description), reserved(), isa(description))
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
        return AML.device(
            "PCI0", AML.define("_HID", AML.eisaID("PNP0A08")), AML.define("_CID", AML.eisaID("PNP0A03")), AML.define("_UID", AML.integer(0)),
            AML.define("_SEG", AML.integer(0)), AML.define("_BBN", AML.integer(0)),
            operatingSystemCapabilities(),
            AML.define(
                "_CRS",
                AML.resources(
                    AML.busNumbers(0, 0xFF), AML.ioPorts(0xCF8, count: 8), AML.portWindow(0, 0xCF7), AML.portWindow(0xD00, MemoryMap.pciPortWindowEnd),
                    AML.memoryWindow(UInt32(MemoryMap.pciWindow), UInt32(MemoryMap.pciWindowEnd - 1)),
                    AML.memoryWindow64(wide.lowerBound, wide.upperBound))),
            AML.define("_PRT", interruptRouting()))
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

    /// Pin (INTA…INTD) of each slot to GSI 16…23 by the slot's rotation, without link devices.
    private static func interruptRouting() -> [UInt8] {
        var entries: [[UInt8]] = []
        for slot in UInt64(0)..<32 {
            for pin in UInt64(0)..<4 {
                let gsi = 16 + (slot + pin) % 8
                entries.append(AML.package_([AML.integer(slot << 16 | 0xFFFF), AML.integer(pin), AML.integer(0), AML.integer(gsi)]))
            }
        }
        return AML.package_(entries)
    }

    /// What no driver may claim: configuration space, KVM's pages, the power management ports.
    private static func reserved() -> [UInt8] {
        AML.device(
            "RSVD", AML.define("_HID", AML.eisaID("PNP0C02")), AML.define("_UID", AML.integer(1)),
            AML.define(
                "_CRS",
                AML.resources(
                    AML.fixedMemory(UInt32(MemoryMap.ecamBase), byteCount: UInt32(MemoryMap.ecamByteCount)),
                    AML.fixedMemory(UInt32(MemoryMap.kvmReserved), byteCount: UInt32(MemoryMap.kvmReservedByteCount)),
                    AML.ioPorts(MemoryMap.pmBase, count: 0x40), AML.ioPorts(0xB2, count: 2))))
    }

    private static func isa(_ description: ACPIDescription) -> [UInt8] {
        var devices = AML.device(
            "RTC_", AML.define("_HID", AML.eisaID("PNP0B00")), AML.define("_CRS", AML.resources(AML.ioPorts(0x70, count: 2), AML.irq(8))))
        if description.hasKeyboardController {
            devices += AML.device(
                "PS2K", AML.define("_HID", AML.eisaID("PNP0303")),
                AML.define("_CRS", AML.resources(AML.ioPorts(0x60, count: 1), AML.ioPorts(0x64, count: 1), AML.irq(1))))
        }
        if description.hasSerialPort {
            devices += AML.device(
                "COM1", AML.define("_HID", AML.eisaID("PNP0501")), AML.define("_UID", AML.integer(1)),
                AML.define("_CRS", AML.resources(AML.ioPorts(0x3F8, count: 8), AML.irq(4))))
        }
        return devices
    }
}
