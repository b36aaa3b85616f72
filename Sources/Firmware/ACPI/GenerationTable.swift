// The SSDT of the generation id (Microsoft, "Virtual Machine Generation ID", §5; QEMU, docs/specs/vmgenid.rst): a device whose
// method ADDR tells where in memory the id lies, and the event by which it is told that the id changed.

enum GenerationTable {
    /// Where the page's address stands in the table: behind the header, the opcodes of a name and of its double word.
    static let pointerOffset = 36 + 6
    /// Firmware that takes the page for a table sees a header of zeroes.
    static let offsetInPage = 40

    static func body() -> [UInt8] {
        let address = AML.local(0)
        // The address as a double word whatever its value, for it is patched.
        return AML.define("VGIA", [0x0C, 0, 0, 0, 0])
            + AML.scope(
                "\\_SB_",
                AML.device(
                    "VGEN", AML.define("_HID", AML.string("QEMUVGID")), AML.define("_CID", AML.string("VM_Gen_Counter")),
                    AML.define("_DDN", AML.string("VM_Gen_Counter")),
                    AML.method(
                        "_STA", arguments: 0, AML.if_(AML.equal(AML.name("VGIA"), AML.integer(0)), AML.return_(AML.integer(0))),
                        AML.return_(AML.integer(0x0F))),
                    AML.method(
                        "ADDR", arguments: 0, AML.store(AML.emptyPackage(2), to: address),
                        AML.store(AML.add(AML.name("VGIA"), AML.integer(UInt64(offsetInPage))), to: AML.element(0, of: address)),
                        AML.store(AML.integer(0), to: AML.element(1, of: address)), AML.return_(address))))
            + AML.scope("\\_GPE", AML.method("_E05", arguments: 0, AML.notify("\\_SB_.VGEN", 0x80)))
    }
}
