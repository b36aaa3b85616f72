// The properties of an image in the names ImageMetaProps gives them (contract §8.4). The `image` argument of a build holds
// them as Glance does: old spellings, numbers and truth values as text, keys Nova has never heard of.
package import JSON

/// Normalised image properties: old spellings replaced, unknown keys dropped.
package struct ImageProperties: Sendable, Equatable {
    package let values: [String: JSONValue]

    /// From the `properties` of an image, in Nova's own image form.
    package init(image: JSONValue) { self.init(image["properties"]?.objectValue ?? [:]) }

    /// From the system metadata of an instance, where each key has "image_" before it.
    package init(systemMetadata: [String: String]) {
        var properties: [String: JSONValue] = [:]
        for (key, value) in systemMetadata where key.hasPrefix("image_") {
            properties[String(key.dropFirst("image_".count))] = .string(value)
        }
        self.init(properties)
    }

    package init(_ properties: [String: JSONValue]) {
        var values: [String: JSONValue] = [:]
        for (old, current) in Self.oldSpellings {
            if let value = properties[old] { values[current] = value }
        }
        if let adapter = properties["vmware_adaptertype"]?.stringValue, !adapter.isEmpty {
            values["hw_disk_bus"] = adapter == "ide" ? "ide" : "scsi"
            if adapter != "ide" { values["hw_scsi_model"] = .string(adapter) }
        }
        for (key, value) in properties where Self.known.contains(key) { values[key] = value }
        for key in ["hw_numa_cpus", "hw_numa_mem"] {
            let list = Self.numbered(key, in: properties)
            if !list.isEmpty { values[key] = .array(list) }
        }
        self.values = values
    }

    package func string(_ name: String) -> String? {
        switch values[name] {
        case .string(let text): text
        case .integer(let number): String(number)
        case .bool(let flag): flag ? "true" : "false"
        default: nil
        }
    }

    package func integer(_ name: String) -> Int? {
        values[name]?.intValue ?? string(name).flatMap { Int($0) }
    }

    /// A FlexibleBoolean: what oslo's strutils takes as true is true, everything else is false.
    package func flag(_ name: String) -> Bool? {
        guard let value = values[name] else { return nil }
        if let flag = value.boolValue { return flag }
        return string(name).map(Self.isTrue)
    }

    /// What oslo's strutils takes as true; every other text is false.
    package static func isTrue(_ text: String) -> Bool { ["1", "t", "true", "on", "y", "yes"].contains(text.lowercased()) }

    private static func numbered(_ key: String, in properties: [String: JSONValue]) -> [JSONValue] {
        var list: [JSONValue] = []
        while let value = properties["\(key).\(list.count)"] { list.append(value) }
        return list
    }

    private static let oldSpellings: [String: String] = [
        "architecture": "hw_architecture", "auto_disk_config": "hw_auto_disk_config",
        "ipxe_boot": "hw_ipxe_boot", "vm_mode": "hw_vm_mode", "hypervisor_type": "img_hv_type",
        "hypervisor_version_requires": "img_hv_requested_version", "owner_id": "img_owner_id",
        "root_device_name": "img_root_device_name", "cache_in_nova": "img_cache_in_nova",
        "mappings": "img_mappings", "block_device_mapping": "img_block_device_mapping", "bdm_v2": "img_bdm_v2",
        "bittorrent": "img_bittorrent", "vmware_disktype": "hw_disk_type",
        "vmware_image_version": "img_version", "vmware_linked_clone": "img_linked_clone",
        "vmware_ostype": "os_distro",
    ]

    private static let known: Set<String> = [
        "hw_architecture", "hw_emulation_architecture", "hw_auto_disk_config", "hw_boot_menu", "hw_cdrom_bus",
        "hw_cpu_cores", "hw_cpu_sockets", "hw_cpu_max_cores", "hw_cpu_max_sockets", "hw_cpu_max_threads",
        "hw_cpu_policy", "hw_cpu_thread_policy", "hw_cpu_realtime_mask", "hw_cpu_threads", "hw_device_id",
        "hw_disk_bus", "hw_disk_type", "hw_floppy_bus", "hw_firmware_type", "hw_firmware_stateless", "hw_input_bus",
        "hw_ipxe_boot", "hw_locked_memory", "hw_machine_type", "hw_mem_encryption", "hw_mem_encryption_model",
        "hw_mem_page_size", "hw_numa_nodes", "hw_pci_numa_affinity_policy", "hw_pointer_model", "hw_pmu",
        "hw_qemu_guest_agent", "hw_rescue_bus", "hw_rescue_device", "hw_rng_model", "hw_time_hpet",
        "hw_serial_port_count", "hw_scsi_model", "hw_video_model", "hw_video_ram", "hw_vif_model",
        "hw_viommu_model", "hw_vm_mode", "hw_watchdog_action", "hw_vif_multiqueue_enabled", "hw_tpm_model",
        "hw_tpm_version", "hw_ephemeral_encryption", "hw_ephemeral_encryption_format",
        "hw_ephemeral_encryption_secret_uuid", "hw_virtio_packed_ring", "hw_maxphysaddr_mode",
        "hw_maxphysaddr_bits", "hw_sound_model", "hw_usb_model", "hw_redirected_usb_ports", "img_bittorrent",
        "img_bdm_v2", "img_block_device_mapping", "img_cache_in_nova", "img_compression_level",
        "img_hv_requested_version", "img_hv_type", "img_config_drive", "img_linked_clone", "img_mappings",
        "img_owner_id", "img_root_device_name", "img_use_agent", "img_version", "img_signature",
        "img_signature_hash_method", "img_signature_certificate_uuid", "img_signature_key_type",
        "img_hide_hypervisor_id", "os_admin_user", "os_command_line", "os_distro", "os_require_quiesce",
        "os_secure_boot", "os_skip_agent_inject_files_at_boot", "os_skip_agent_inject_ssh", "os_type",
        "traits_required",
    ]
}
