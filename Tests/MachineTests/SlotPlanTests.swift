import Testing

@testable import Machine

@Suite struct SlotPlanTests {
    @Test func whatHasAnIndexIsTriedFirstAndPathsNameTheSlot() {
        var plan = SlotPlan(first: 2)
        #expect(plan.take((.virtioDisk, nil)) == 2)
        #expect(plan.take((.network, 1)) == 3)
        #expect(plan.take() == 4)
        #expect(plan.take((.below("/pci@i0cf8/pci1b36,10@*/namespace@1,0"), 0)) == 5)
        plan.note("/pci@i0cf8/ide@1,1/drive@0/disk@0", 0)
        #expect(
            plan.bootOrder == [
                "/pci@i0cf8/pci1b36,10@5/namespace@1,0", "/pci@i0cf8/ide@1,1/drive@0/disk@0", "/pci@i0cf8/ethernet@3/ethernet-phy@0",
                "/pci@i0cf8/scsi@2/disk@0,0",
            ])
    }
}
