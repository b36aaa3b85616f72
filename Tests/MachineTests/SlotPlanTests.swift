import Testing

@testable import Machine

@Suite struct SlotPlanTests {
    @Test func whatHasAnIndexIsTriedFirstAndPathsNameTheSlot() {
        var plan = SlotPlan(first: 2)
        #expect(plan.take((.virtioDisk, nil)) == 2)
        #expect(plan.take((.network, 1)) == 3)
        #expect(plan.take() == 4)
        #expect(plan.take((.below("/pci1b36,10@*/namespace@1,0"), 0)) == 5)
        plan.note("/pci@i0cf8/ide@1,1/drive@0/disk@0", 0)
        #expect(
            plan.bootOrder == [
                "/pci@i0cf8/pci1b36,10@5/namespace@1,0", "/pci@i0cf8/ide@1,1/drive@0/disk@0", "/pci@i0cf8/ethernet@3/ethernet-phy@0",
                "/pci@i0cf8/scsi@2/disk@0,0",
            ])
    }

    @Test func whatIsBehindAPortHasItsPath() {
        var plan = SlotPlan(first: 2)
        #expect(plan.takePort() == 2 && plan.takePort() == 3)
        let behind = plan.take((.virtioDisk, 1), port: 1), beside = plan.take((.network, 0), port: nil)
        #expect(behind.slot == 0 && behind.port == 1 && beside.slot == 4 && beside.port == nil)
        #expect(plan.bootOrder == ["/pci@i0cf8/ethernet@4/ethernet-phy@0", "/pci@i0cf8/pci-bridge@3/scsi@0/disk@0,0"])
    }
}
