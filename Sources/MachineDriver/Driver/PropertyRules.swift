// Image properties and extra specs that ask for what this monitor does not have. A server that asks for one of them is refused in words:
// nobody is to believe in a device, or a guarantee, that is not there. Those that are honoured are read where they are used (BoardChoice,
// ProcessorChoice, DiskQuota, MachinePlan); those that the scheduler alone reads, or that say nothing about a machine, are in no list.
import ComputeDriver
import NovaObjects

/// One thing that can be asked for, and which answers to it are as good as the absence of the question.
struct PropertyRule: Sendable {
    enum Acceptable: Sendable {
        /// These values; Nova's words, without regard to case.
        case words([String])
        /// "false" and its like: nothing is asked for.
        case off
        /// "true" and its like: it is so in any case.
        case on
        case nothing
    }
    /// By its name and by older ones.
    var imageProperties: [String] = []
    var extraSpecs: [String] = []
    var acceptable: Acceptable
    /// What is asked for, as the tenant reads it.
    var meaning: String

    static let all: [PropertyRule] = [
        PropertyRule(imageProperties: ["hw_architecture", "architecture"], acceptable: .words(["x86_64", "amd64", "i686", "i386", "x86"]), meaning: "an architecture other than x86_64 and i686"),
        PropertyRule(imageProperties: ["hw_emulation_architecture"], acceptable: .words(["x86_64", "i686"]), meaning: "the emulation of another architecture"),
        PropertyRule(imageProperties: ["hw_vm_mode", "vm_mode"], acceptable: .words(["hvm"]), meaning: "a virtual machine mode other than hvm"),
        PropertyRule(imageProperties: ["img_hv_type", "hypervisor_type"], acceptable: .words(["kvm", "qemu"]), meaning: "a hypervisor type other than kvm"),
        PropertyRule(imageProperties: ["hw_boot_menu"], extraSpecs: ["hw:boot_menu"], acceptable: .off, meaning: "a boot menu"),
        PropertyRule(imageProperties: ["hw_input_bus"], acceptable: .nothing, meaning: "input devices"),
        PropertyRule(imageProperties: ["hw_pointer_model"], acceptable: .words(["ps2mouse"]), meaning: "a tablet"),
        PropertyRule(imageProperties: ["hw_locked_memory"], extraSpecs: ["hw:locked_memory"], acceptable: .off, meaning: "locked memory"),
        PropertyRule(imageProperties: ["hw_mem_encryption"], extraSpecs: ["hw:mem_encryption"], acceptable: .off, meaning: "encrypted memory"),
        PropertyRule(imageProperties: ["hw_pmu"], extraSpecs: ["hw:pmu"], acceptable: .on, meaning: "a processor without performance counters"),
        PropertyRule(imageProperties: ["hw_cpu_policy"], extraSpecs: ["hw:cpu_policy"], acceptable: .words(["shared"]), meaning: "dedicated processors"),
        PropertyRule(imageProperties: ["hw_cpu_thread_policy"], extraSpecs: ["hw:cpu_thread_policy"], acceptable: .words(["prefer"]), meaning: "a policy for processor threads"),
        PropertyRule(extraSpecs: ["hw:cpu_realtime"], acceptable: .off, meaning: "real-time processors"),
        PropertyRule(extraSpecs: ["hw:emulator_threads_policy"], acceptable: .nothing, meaning: "a policy for emulator threads"),
        PropertyRule(imageProperties: ["hw_qemu_guest_agent"], acceptable: .off, meaning: "a guest agent's channel"),
        PropertyRule(imageProperties: ["os_require_quiesce"], acceptable: .off, meaning: "snapshots of a quiesced file system"),
        PropertyRule(imageProperties: ["hw_rng_model"], acceptable: .words(["virtio"]), meaning: "a random number generator other than virtio"),
        PropertyRule(extraSpecs: ["hw_rng:rate_bytes"], acceptable: .nothing, meaning: "a limit on the random number generator"),
        PropertyRule(imageProperties: ["hw_serial_port_count"], extraSpecs: ["hw:serial_port_count"], acceptable: .words(["1"]), meaning: "more or fewer than one serial port"),
        PropertyRule(imageProperties: ["hw_scsi_model"], acceptable: .words(["virtio-scsi"]), meaning: "a SCSI controller other than virtio-scsi"),
        PropertyRule(imageProperties: ["hw_video_model"], acceptable: .words(["none"]), meaning: "a display"),
        PropertyRule(imageProperties: ["hw_video_ram"], acceptable: .words(["0"]), meaning: "a display's memory"),
        PropertyRule(imageProperties: ["hw_vif_model"], acceptable: .words(["virtio"]), meaning: "a network card other than virtio"),
        PropertyRule(imageProperties: ["hw_viommu_model"], extraSpecs: ["hw:viommu_model"], acceptable: .nothing, meaning: "an IOMMU"),
        PropertyRule(imageProperties: ["hw_tpm_model"], extraSpecs: ["hw:tpm_model"], acceptable: .nothing, meaning: "a TPM"),
        PropertyRule(imageProperties: ["hw_tpm_version"], extraSpecs: ["hw:tpm_version"], acceptable: .nothing, meaning: "a TPM"),
        PropertyRule(imageProperties: ["hw_ephemeral_encryption"], extraSpecs: ["hw:ephemeral_encryption"], acceptable: .off, meaning: "encrypted disks"),
        PropertyRule(imageProperties: ["hw_virtio_packed_ring"], extraSpecs: ["hw:virtio_packed_ring"], acceptable: .off, meaning: "packed virtqueues"),
        PropertyRule(imageProperties: ["hw_maxphysaddr_mode"], extraSpecs: ["hw:maxphysaddr_mode"], acceptable: .nothing, meaning: "a width of physical addresses"),
        PropertyRule(imageProperties: ["hw_sound_model"], extraSpecs: ["hw:sound_model"], acceptable: .nothing, meaning: "a sound device"),
        PropertyRule(imageProperties: ["hw_usb_model"], extraSpecs: ["hw:usb_model"], acceptable: .nothing, meaning: "a USB controller"),
        PropertyRule(imageProperties: ["hw_redirected_usb_ports"], extraSpecs: ["hw:redirected_usb_ports"], acceptable: .words(["0"]), meaning: "redirected USB ports"),
        PropertyRule(imageProperties: ["hw_firmware_stateless"], acceptable: .off, meaning: "firmware without a memory"),
        PropertyRule(extraSpecs: ["hw:pmem"], acceptable: .nothing, meaning: "persistent memory"),
        PropertyRule(extraSpecs: ["quota:cpu_shares", "quota:cpu_period", "quota:cpu_quota"], acceptable: .words(["0"]), meaning: "a share of processor time"),
        PropertyRule(
            extraSpecs: ["inbound", "outbound"].flatMap { way in ["average", "peak", "burst"].map { "quota:vif_\(way)_\($0)" } },
            acceptable: .words(["0"]), meaning: "a limit on a port's traffic"),
        PropertyRule(extraSpecs: ["pci_passthrough:alias"], acceptable: .nothing, meaning: "a device of the host"),
        PropertyRule(extraSpecs: ["accel:device_profile"], acceptable: .nothing, meaning: "an accelerator"),
    ]

    /// - Throws: UnsupportedHardware, which names the property, its value and what it asks for.
    static func check(_ image: ImageFields, _ specs: [String: String]) throws(DriverError) {
        for rule in all {
            for name in rule.imageProperties {
                if let value = image.text(name), !rule.accepts(value) { throw rule.refusal("image property", name, value) }
            }
            for name in rule.extraSpecs {
                if let value = specs[name], !rule.accepts(value) { throw rule.refusal("extra spec", name, value) }
            }
        }
    }

    func accepts(_ value: String) -> Bool {
        switch acceptable {
        case .words(let words): words.contains(value.lowercased())
        case .off: !ImageProperties.isTrue(value)
        case .on: ImageProperties.isTrue(value)
        case .nothing: false
        }
    }

    private func refusal(_ kind: String, _ name: String, _ value: String) -> DriverError {
        DriverError(
            novaClass: "UnsupportedHardware",
            tenantMessage: "Requested hardware '\(value.prefix(64))' is not supported by this compute host: \(kind) \(name) asks for \(meaning).",
            fault: .caller)
    }
}
