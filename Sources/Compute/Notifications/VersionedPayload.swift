// The payload of versioned notifications: objects of nova.notifications.objects in primitive form, without change marks.
import JSON
import NovaObjects
import OsloMessaging

struct VersionedPayload {
    /// `instance_name_template`, as far as nova-compute's own default goes.
    let instanceName: @Sendable (Instance) -> String

    func make(
        _ payload: PayloadClass, _ instance: Instance, kind: NotificationKind, networkInfo: NetworkInfo,
        extra: [String: JSONValue], fault: JSONValue, context: RequestContext
    ) -> JSONValue {
        var data = Self.common(instance, networkInfo: networkInfo, context: context)
        data["block_devices"] =
            extra["block_devices"].map(Self.blockDevices) ?? (kind.tellsVolumes ? [] : .null)
        if payload == .exists {
            data["audit_period"] = Self.object(
                "AuditPeriodPayload", "1.0",
                [
                    "audit_period_beginning": Self.time(extra["audit_period_beginning"]),
                    "audit_period_ending": Self.time(extra["audit_period_ending"]),
                ])
            return Self.object(payload.name, payload.version, data)
        }
        data["fault"] = fault
        for key in payload.extras { data[key] = extra[key] ?? .null }
        if let flavor = extra["new_flavor"], payload == .resizePrep {
            data["new_flavor"] = (try? Flavor(primitive: flavor)).map(Self.flavor) ?? .null
        }
        if payload == .create || payload == .rebuild {
            data["trusted_image_certificates"] =
                instance.object["trusted_certs"]?["nova_object.data"]?["ids"] ?? .null
        }
        if payload == .create {
            data["keypairs"] = .array(instance.keypairs.map(Self.keypair))
            data["tags"] = .array(Self.list(instance.object["tags"]).compactMap { $0["nova_object.data"]?["tag"] })
            data["instance_name"] = .string(instanceName(instance))
        }
        return Self.object(payload.name, payload.version, data)
    }

    /// ExceptionPayload 1.1: as a notification of its own and inside of an instance's.
    static func exception(_ error: NovaException, function: String) -> JSONValue {
        object(
            "ExceptionPayload", "1.1",
            [
                "module_name": .string(error.module), "function_name": .string(function),
                "exception": .string(error.className), "exception_message": .string(error.message),
                "traceback": .string("\(error)"),
            ])
    }

    static func object(_ name: String, _ version: String, _ data: [String: JSONValue]) -> JSONValue {
        [
            "nova_object.name": .string(name), "nova_object.namespace": "nova", "nova_object.version": .string(version),
            "nova_object.data": .object(data),
        ]
    }

    // MARK: Parts

    private static func common(
        _ instance: Instance, networkInfo: NetworkInfo, context: RequestContext
    ) -> [String: JSONValue] {
        let object = instance.object
        var data: [String: JSONValue] = [:]
        for (key, field) in fields { data[key] = object[field] ?? .null }
        data["metadata"] = object["metadata"] ?? [:]
        data["locked"] = object["locked"] ?? false
        data["power_state"] = .nullable(instance.powerState.flatMap { powerStates[$0] })
        data["auto_disk_config"] = object["auto_disk_config"]?.boolValue == true ? "AUTO" : "MANUAL"
        data["flavor"] = instance.flavor.map(flavor) ?? .null
        data["ip_addresses"] = .array(networkInfo.flatMap(addresses))
        // Periodic work belongs to no request.
        let isUsers = context.userID != nil && context.projectID != nil
        data["request_id"] = .nullable(isUsers ? context.requestID : nil)
        data["action_initiator_user"] = .nullable(context.userID)
        data["action_initiator_project"] = .nullable(context.projectID)
        data["locked_reason"] = .nullable(instance.systemMetadata["locked_reason"])
        return data
    }

    /// Payload field → field of Instance.
    private static let fields: [String: String] = [
        "uuid": "uuid", "user_id": "user_id", "tenant_id": "project_id", "reservation_id": "reservation_id",
        "display_name": "display_name", "display_description": "display_description", "host_name": "hostname",
        "host": "host", "node": "node", "os_type": "os_type", "architecture": "architecture",
        "availability_zone": "availability_zone", "image_uuid": "image_ref", "key_name": "key_name",
        "kernel_id": "kernel_id", "ramdisk_id": "ramdisk_id", "created_at": "created_at", "launched_at": "launched_at",
        "terminated_at": "terminated_at", "deleted_at": "deleted_at", "updated_at": "updated_at", "state": "vm_state",
        "task_state": "task_state", "progress": "progress",
    ]

    private static let powerStates = [
        0: "pending", 1: "running", 3: "paused", 4: "shutdown", 6: "crashed", 7: "suspended",
    ]

    private static func flavor(_ flavor: Flavor) -> JSONValue {
        let names = [
            "flavorid", "memory_mb", "vcpus", "root_gb", "ephemeral_gb", "name", "swap", "rxtx_factor", "vcpu_weight",
            "disabled", "is_public", "extra_specs", "projects", "description",
        ]
        var data: [String: JSONValue] = [:]
        for name in names { data[name] = flavor.object[name] ?? .null }
        return object("FlavorPayload", "1.4", data)
    }

    private static func addresses(_ vif: VIF) -> [JSONValue] {
        vif.fixedIPs.map { ip in
            object(
                "IpPayload", "1.0",
                [
                    "label": vif.json["network"]?["label"] ?? .null, "mac": .string(vif.address),
                    "meta": vif.json["meta"] ?? [:], "port_uuid": .string(vif.id), "version": ip["version"] ?? .null,
                    "address": ip["address"] ?? .null, "device_name": vif.json["devname"] ?? .null,
                ])
        }
    }

    private static func keypair(_ keypair: VersionedObject) -> JSONValue {
        var data: [String: JSONValue] = [:]
        for name in ["user_id", "name", "public_key", "fingerprint", "type"] { data[name] = keypair[name] ?? .null }
        return object("KeypairPayload", "1.0", data)
    }

    /// Volumes among block device mappings, given as a list object or as an array of primitives.
    private static func blockDevices(_ value: JSONValue) -> JSONValue {
        if value.isNull { return .null }
        var devices: [JSONValue] = []
        for primitive in list(value) {
            guard let mapping = try? BlockDeviceMapping(primitive: primitive), mapping.volumeID != nil else { continue }
            var data: [String: JSONValue] = ["delete_on_termination": .bool(mapping.isDeletedOnTermination)]
            for name in ["device_name", "boot_index", "volume_id", "tag"] { data[name] = mapping.object[name] ?? .null }
            devices.append(object("BlockDevicePayload", "1.0", data))
        }
        return .array(devices)
    }

    private static func list(_ value: JSONValue?) -> [JSONValue] {
        value?.arrayValue ?? value?["nova_object.data"]?["objects"]?.arrayValue ?? []
    }

    private static func time(_ value: JSONValue?) -> JSONValue {
        .nullable(value?.stringValue.flatMap(NovaTime.init)?.fieldText)
    }
}
