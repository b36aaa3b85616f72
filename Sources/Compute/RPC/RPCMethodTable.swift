// The compute RPC API 6.x (RPC reference §3): every method a control plane may send, those included that are not carried out.

package enum RPCMethodTable {
    package static let all: [RPCMethod] = life + power + images + moves + volumes + interfaces + consoles + host

    package static let byName: [String: RPCMethod] = Dictionary(
        all.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })

    private static let life: [RPCMethod] = [
        .carriedOut(
            "build_and_run_instance", .cast, "ETAFL",
            [
                .instance, .image, .requestSpec, .dictionary("filter_properties"), .array("accel_uuids").optional,
                .text("admin_password").optional, .array("injected_files").optional,
                .object("NetworkRequestList", "requested_networks").optional, .array("security_groups").optional,
                .object("BlockDeviceMappingList", "block_device_mapping").optional, .text("node").optional,
                .dictionary("limits").optional, .objects("Selection", "host_list").optional,
            ]),
        .carriedOut(
            "terminate_instance", .cast, "ETAFL", [.instance, .object("BlockDeviceMappingList", "bdms").optional]),
        .carriedOut(
            "rebuild_instance", .cast, "ETAF",
            [
                .instance, .text("orig_image_ref").optional, .text("image_ref").optional,
                .array("injected_files").optional, .text("new_pass").optional,
                .dictionary("orig_sys_metadata").optional, .object("BlockDeviceMappingList", "bdms").optional,
                .flag("recreate").optional, .flag("on_shared_storage").optional, .flag("preserve_ephemeral").optional,
                .migration.optional, .text("scheduled_node").optional, .dictionary("limits").optional,
                .requestSpec.optional, .array("accel_uuids").optional, .flag("reimage_boot_volume").optional,
                .text("target_state").optional,
            ]),
        .carriedOut("soft_delete_instance", .cast, "ETAF", [.instance]),
        .carriedOut("restore_instance", .cast, "ETAF", [.instance]),
        .carriedOut(
            "rescue_instance", .cast, "ETAF",
            [.instance, .text("rescue_password").optional, .text("rescue_image_ref").optional, .cleanShutdown.optional]),
        .carriedOut("unrescue_instance", .cast, "ETAF", [.instance]),
        .carriedOut(
            "shelve_instance", .cast, "ETAFL",
            [.instance, .text("image_id").optional, .cleanShutdown.optional, .array("accel_uuids").optional]),
        .carriedOut(
            "shelve_offload_instance", .cast, "ETAFL",
            [.instance, .cleanShutdown.optional, .array("accel_uuids").optional]),
        .carriedOut(
            "unshelve_instance", .cast, "ETAFL",
            [
                .instance, .image.optional, .dictionary("filter_properties").optional, .text("node").optional,
                .requestSpec.optional, .array("accel_uuids").optional,
            ]),
    ]

    private static let power: [RPCMethod] = [
        .carriedOut("stop_instance", .cast, "ETAFL", [.instance, .cleanShutdown.optional]),
        .carriedOut("start_instance", .cast, "ETAF", [.instance]),
        .carriedOut(
            "reboot_instance", .cast, "ETAFL", [.instance, .any("block_device_info"), .text("reboot_type")]),
        .carriedOut("pause_instance", .cast, "ETAF", [.instance]),
        .carriedOut("unpause_instance", .cast, "ETAF", [.instance]),
        .carriedOut("suspend_instance", .cast, "ETAF", [.instance]),
        .carriedOut("resume_instance", .cast, "ETAF", [.instance]),
        .refused("set_admin_password", .call, "ETAF", [.instance, .text("new_pass").optional]),
        .carriedOut("trigger_crash_dump", .cast, "EAF", [.instance]),
        .refused("inject_network_info", .cast, "F", [.instance]),
    ]

    private static let images: [RPCMethod] = [
        .carriedOut("snapshot_instance", .cast, "ETAF", [.text("image_id"), .instance]),
        .carriedOut(
            "backup_instance", .cast, "ETAF",
            [.text("image_id"), .instance, .text("backup_type"), .integer("rotation")]),
        .refused("quiesce_instance", .call, "E", [.instance]),
        .refused("unquiesce_instance", .cast, "E", [.instance, .array("mapping").optional]),
        .refused(
            "volume_snapshot_create", .cast, "E", [.instance, .text("volume_id"), .dictionary("create_info")]),
        .refused(
            "volume_snapshot_delete", .cast, "E",
            [.instance, .text("volume_id"), .text("snapshot_id"), .dictionary("delete_info")]),
        .carriedOut("cache_images", .longCall, "", [.array("image_ids")]),
    ]

    private static let moves: [RPCMethod] = [
        .carriedOut(
            "prep_resize", .cast, "ETAMF",
            [
                .image, .instance, .object("Flavor", "flavor"), .any("request_spec"),
                .dictionary("filter_properties").optional, .text("node").optional, .cleanShutdown.optional,
                .migration, .objects("Selection", "host_list").optional,
            ]),
        .carriedOut(
            "resize_instance", .cast, "ETAMF",
            [
                .instance, .image, .migration, .object("Flavor", "flavor"), .cleanShutdown.optional,
                .requestSpec.optional,
            ]),
        .carriedOut(
            "finish_resize", .cast, "ETAMF",
            [.any("disk_info"), .image, .instance, .migration, .requestSpec.optional]),
        .carriedOut("confirm_resize", .cast, "EAMFL", [.instance, .migration]),
        .carriedOut("revert_resize", .cast, "ETAMF", [.instance, .migration, .requestSpec.optional]),
        .carriedOut("finish_revert_resize", .cast, "ETAMF", [.instance, .migration, .requestSpec.optional]),
        .refused(
            "prep_snapshot_based_resize_at_dest", .longCall, "EAF",
            [
                .instance, .object("Flavor", "flavor"), .text("nodename"), .migration,
                .object("SchedulerLimits", "limits").optional,
            ], as: .exception("MigrationPreCheckError")),
        .refused(
            "prep_snapshot_based_resize_at_source", .longCall, "ETAMF",
            [.instance, .migration, .text("snapshot_id").optional]),
        .refused(
            "finish_snapshot_based_resize_at_dest", .longCall, "ETAMF",
            [.instance, .migration, .text("snapshot_id").optional]),
        .refused("confirm_snapshot_based_resize_at_source", .longCall, "EAMFL", [.instance, .migration]),
        .refused("revert_snapshot_based_resize_at_dest", .longCall, "ETAMFL", [.instance, .migration]),
        .refused("finish_revert_snapshot_based_resize_at_source", .longCall, "ETAMFL", [.instance, .migration]),
        .refused(
            "check_can_live_migrate_destination", .longCall, "EAF",
            [
                .instance, .flag("block_migration").optional, .flag("disk_over_commit").optional, .migration.optional,
                .object("SchedulerLimits", "limits").optional,
            ], as: .exception("MigrationPreCheckError")),
        .refused(
            "check_can_live_migrate_source", .call, "EAF",
            [.instance, .object("LiveMigrateData", "dest_check_data")], as: .exception("MigrationPreCheckError")),
        .refused(
            "pre_live_migration", .longCall, "EAF",
            [.instance, .any("disk"), .object("LiveMigrateData", "migrate_data")],
            as: .exception("MigrationPreCheckError")),
        .refused(
            "live_migration", .cast, "EAMF",
            [
                .text("dest"), .instance, .flag("block_migration").optional, .migration,
                .object("LiveMigrateData", "migrate_data").optional,
            ]),
        .refused("live_migration_force_complete", .cast, "EAF", [.instance]),
        .refused("live_migration_abort", .cast, "EAF", [.instance, .integer("migration_id")]),
        .refused(
            "post_live_migration_at_destination", .longCall, "EAF", [.instance, .flag("block_migration").optional]),
        .refused(
            "rollback_live_migration_at_destination", .cast, "EAF",
            [.instance, .flag("destroy_disks").optional, .object("LiveMigrateData", "migrate_data").optional]),
        .refused("drop_move_claim_at_destination", .call, "EF", [.instance]),
        .refused("check_instance_shared_storage", .call, "E", [.any("data")]),
    ]

    private static let volumes: [RPCMethod] = [
        .refused("remove_volume_connection", .call, "E", [.text("volume_id"), .instance]),
        // The API shows the text of an InvalidVolume to the user, and 500 for anything it does not know.
        .refused(
            "reserve_block_device_name", .longCall, "ETF",
            [
                .instance, .text("device").optional, .text("volume_id"), .text("disk_bus").optional,
                .text("device_type").optional, .text("tag").optional, .flag("multiattach").optional,
            ], as: .exception("InvalidVolume")),
        .refused("attach_volume", .cast, "EAFL", [.instance, .object("BlockDeviceMapping", "bdm")]),
        .refused("detach_volume", .cast, "EAFL", [.text("volume_id"), .instance, .text("attachment_id").optional]),
        .refused(
            "swap_volume", .cast, "EAFL",
            [.text("old_volume_id"), .text("new_volume_id"), .instance, .text("new_attachment_id").optional]),
        .refused("allow_share", .cast, "EAF", [.instance, .object("ShareMapping", "share_mapping")], since: 4),
        .refused("deny_share", .cast, "EAF", [.instance, .object("ShareMapping", "share_mapping")], since: 4),
    ]

    private static let interfaces: [RPCMethod] = [
        .refused(
            "attach_interface", .call, "EAF",
            [
                .instance, .text("network_id").optional, .text("port_id").optional, .text("requested_ip").optional,
                .text("tag").optional,
            ]),
        .refused("detach_interface", .cast, "EAF", [.instance, .text("port_id")]),
        .refused("add_fixed_ip_to_instance", .cast, "EF", [.text("network_id"), .instance]),
        .refused("remove_fixed_ip_from_instance", .cast, "EF", [.text("address"), .instance]),
        .carriedOut(
            "external_instance_event", .cast, "E",
            [.objects("Instance", "instances"), .objects("InstanceExternalEvent", "events")]),
    ]

    private static let consoles: [RPCMethod] = [
        .carriedOut("get_console_output", .call, "EF", [.instance, .any("tail_length")]),
        .refused("get_vnc_console", .call, "EF", [.text("console_type"), .instance]),
        .refused("get_spice_console", .call, "EF", [.text("console_type"), .instance]),
        .refused("get_mks_console", .call, "EF", [.text("console_type"), .instance]),
        .refused("get_serial_console", .call, "EF", [.text("console_type"), .instance]),
        .refused("get_rdp_console", .call, "EF", [.text("console_type"), .instance]),
        .refused("validate_console_port", .call, "EF", [.instance, .any("port"), .text("console_type")]),
        .carriedOut("get_diagnostics", .call, "EF", [.instance]),
        .carriedOut("get_instance_diagnostics", .call, "EF", [.instance]),
    ]

    private static let host: [RPCMethod] = [
        .carriedOut("get_host_uptime", .call, "E", []),
        .refused("host_power_action", .call, "E", [.text("action")]),
        .refused("host_maintenance_mode", .call, "E", [.text("host").optional, .flag("mode")]),
        .carriedOut("set_host_enabled", .longCall, "E", [.flag("enabled")]),
    ]
}
