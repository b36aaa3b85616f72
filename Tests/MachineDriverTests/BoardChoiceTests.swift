import ComputeDriver
import JSON
import MachineConfiguration
import Testing

@testable import MachineDriver

@Suite struct BoardChoiceTests {
    private func choice(_ properties: [String: JSONValue], hasKernel: Bool = false) throws -> BoardChoice {
        try BoardChoice(ImageFields(.object(["properties": .object(properties)])), hasKernel: hasKernel)
    }

    @Test func anImageWithAKernelStartsItWithoutFirmware() throws {
        let board = try choice(["hw_firmware_type": "uefi"], hasKernel: true)
        #expect(board.machineType == .direct && board.firmware == nil && board.diskBus == "virtio")
    }

    @Test func everyOtherImageGetsAPC() throws {
        let plain = try choice([:])
        #expect(plain.machineType == .q35 && plain.firmware == .bios && plain.diskBus == "virtio")
        let old = try choice(["hw_machine_type": "pc-i440fx-7.2", "hw_disk_bus": "ide", "hw_firmware_type": "uefi"])
        #expect(old.machineType == .pc && old.firmware == .uefi && old.diskBus == "ide")
    }

    @Test func whatWasChosenIsSavedAndOldFilesStayReadable() throws {
        var machine = SavedMachine(
            uuid: "3f0a2b1c-0001-4c4b-9f5e-0123456789ab", name: "a", memoryMiB: 64, vcpus: 1, sockets: 1, cores: 1, threads: 1, commandLine: "",
            hasRAMDisk: false, hasEntropy: true, disks: [SavedMachine.Disk(id: "virtio-disk0", file: "disk", isReadOnly: false, bus: "nvme")],
            queueCount: 1, interfaces: [])
        machine.firmware = .uefi
        machine.machineType = "q35-1.0"
        #expect(SavedMachine(json: machine.json) == machine)
        guard case .object(var members) = machine.json else { return #expect(Bool(false)) }
        members["firmware"] = nil
        members["machineType"] = nil
        members["disks"] = [["id": "virtio-disk0", "file": "disk", "readOnly": false]]
        let old = try #require(SavedMachine(json: .object(members)))
        #expect(old.firmware == nil && old.machineType == "direct-1.0" && old.disks[0].bus == "virtio")
    }
}
