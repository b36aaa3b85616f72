import JSON
import NovaObjects
import Testing

@Suite struct ImagePropertiesTests {
    @Test func `an old spelling is read and the current one wins`() {
        let properties = ImageProperties(image: [
            "properties": ["architecture": "i686", "vm_mode": "hvm", "hw_vm_mode": "xen", "colour": "blue"]
        ])
        #expect(properties.string("hw_architecture") == "i686")
        #expect(properties.string("hw_vm_mode") == "xen")
        #expect(properties.values["colour"] == nil)
        #expect(properties.values["architecture"] == nil)
    }

    @Test(arguments: [("ide", "ide", nil), ("lsilogic", "scsi", "lsilogic")] as [(String, String, String?)])
    func `a VMware adapter becomes a disk bus`(adapter: String, bus: String, model: String?) {
        let properties = ImageProperties(["vmware_adaptertype": .string(adapter)])
        #expect(properties.string("hw_disk_bus") == bus)
        #expect(properties.string("hw_scsi_model") == model)
    }

    @Test func `numbers and truth values come as text`() {
        let properties = ImageProperties(["hw_cpu_cores": "4", "hw_video_ram": 16, "hw_boot_menu": "Yes", "hw_pmu": "no"])
        #expect(properties.integer("hw_cpu_cores") == 4)
        #expect(properties.integer("hw_video_ram") == 16)
        #expect(properties.flag("hw_boot_menu") == true)
        #expect(properties.flag("hw_pmu") == false)
        #expect(properties.flag("hw_time_hpet") == nil)
    }

    @Test func `numbered properties are collected up to the first gap`() {
        let properties = ImageProperties(["hw_numa_mem.0": "128", "hw_numa_mem.1": "64", "hw_numa_mem.3": "1"])
        #expect(properties.values["hw_numa_mem"] == ["128", "64"])
    }

    @Test func `an instance's system metadata holds them with a prefix`() {
        let properties = ImageProperties(systemMetadata: ["image_hw_vif_model": "virtio", "boot_roles": "admin"])
        #expect(properties.values == ["hw_vif_model": "virtio"])
    }
}
