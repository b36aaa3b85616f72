// How the pins of PCI slots reach interrupt inputs, in AML: _PRT, and the link devices behind it whose registers the ISA bridge
// keeps (ACPI 6.4 §6.2.13; PCI interrupt link devices §6.2.13, PNP0C0F).

enum InterruptLinks {
    private static let interruptChoices: [UInt64] = [5, 10, 11]

    /// _PRT for the root's scope.
    static func routingTable(_ routing: ACPIDescription.InterruptRouting) -> [UInt8] {
        switch routing {
        case .fixed: AML.define("_PRT", entries { slot, pin in (AML.integer(0), 16 + (slot + pin) % 8) })
        case .piix: AML.define("_PRT", entries { slot, pin in (link((slot + pin + 3) % 4), 0) })
        case .ich9:
            AML.method(
                "_PRT", arguments: 0,
                AML.if_(AML.name("\\PICM"), AML.return_(entries { slot, pin in (AML.integer(0), 16 + pirq(slot, pin)) })),
                AML.return_(entries { slot, pin in (link(pirq(slot, pin)), 0) }))
        }
    }

    private static func pirq(_ slot: UInt64, _ pin: UInt64) -> UInt64 { slot < 25 ? 4 + (slot + pin) % 4 : pin }

    private static func entries(_ source: (UInt64, UInt64) -> (source: [UInt8], index: UInt64)) -> [UInt8] {
        AML.package_(
            (UInt64(0)..<32).flatMap { slot in
                (UInt64(0)..<4).map { pin in
                    let (source, index) = source(slot, pin)
                    return AML.package_([AML.integer(slot << 16 | 0xFFFF), AML.integer(pin), source, AML.integer(index)])
                }
            })
    }

    private static func letter(_ pirq: UInt64) -> String { ["A", "B", "C", "D", "E", "F", "G", "H"][Int(pirq & 7)] }
    private static func link(_ pirq: UInt64) -> [UInt8] { AML.name("\\_SB_.LNK" + letter(pirq)) }
    private static func register(_ pirq: UInt64) -> String { "\\_SB_.PCI0.ISAB.PRQ" + letter(pirq) }

    /// The bridge's registers and the link devices; \_PIC, by which an OS says which interrupt controllers it uses.
    static func body(_ routing: ACPIDescription.InterruptRouting) -> [UInt8] {
        let address: UInt64, count: UInt64
        switch routing {
        case .fixed: return []
        case .piix: (address, count) = (0x0001_0000, 4)
        case .ich9: (address, count) = (0x001F_0000, 8)
        }
        func registers(_ first: UInt64) -> [(String, UInt64)] { (first..<(first + 4)).map { ("PRQ" + letter($0), 8) } }
        let bridge = AML.device(
            "ISAB", AML.define("_ADR", AML.integer(address)), AML.operationRegion("PIRQ", space: AML.pciConfiguration, offset: 0x60, byteCount: 0x0C),
            AML.field("PIRQ", registers(0) + (count > 4 ? [("", 32)] + registers(4) : [])))
        return AML.define("\\PICM", AML.integer(0))
            + AML.method("\\_PIC", arguments: 1, AML.store(AML.argument(0), to: AML.name("\\PICM")))
            + AML.scope("\\_SB_.PCI0", bridge) + AML.scope("\\_SB_", (0..<count).flatMap(device))
    }

    private static func device(_ pirq: UInt64) -> [UInt8] {
        let register = AML.name(register(pirq)), isOff = AML.and(register, AML.integer(0x80))
        // Byte 5 of the template is the interrupt.
        let current = AML.resources(AML.interrupts([0]))
        return AML.device(
            "LNK" + letter(pirq), AML.define("_HID", AML.eisaID("PNP0C0F")), AML.define("_UID", AML.integer(pirq)),
            AML.define("_PRS", AML.resources(AML.interrupts(interruptChoices))),
            AML.method("_STA", arguments: 0, AML.if_(isOff, AML.return_(AML.integer(0x09))), AML.return_(AML.integer(0x0B))),
            AML.method("_DIS", arguments: 0, AML.or(register, AML.integer(0x80), into: register)),
            AML.method(
                "_CRS", arguments: 0, isSerialized: true, AML.define("PRR0", current),
                AML.doubleWordField("PRRI", of: AML.name("PRR0"), at: 5),
                AML.store(AML.and(register, AML.integer(0x0F)), to: AML.name("PRRI")),
                AML.return_(AML.name("PRR0"))),
            AML.method(
                "_SRS", arguments: 1, isSerialized: true, AML.doubleWordField("PRRI", of: AML.argument(0), at: 5),
                AML.store(AML.name("PRRI"), to: register)))
    }
}
