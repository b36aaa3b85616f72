// The payload of unversioned notifications, which billing systems read: nova.notifications.base.info_from_instance, key for
// key. Times that are not set are empty strings here, and so is a progress of zero.
import JSON
import NovaObjects

struct LegacyPayload {
    /// "http://host:9292": image_ref_url begins with it. Nil: the image's id stands alone.
    let imageEndpoint: String?

    func make(
        _ instance: Instance, networkInfo: NetworkInfo?, extra: [String: JSONValue], fault: NovaException?
    ) -> JSONValue {
        let object = instance.object
        let flavor = instance.flavor
        var payload: [String: JSONValue] = [
            "tenant_id": .nullable(instance.projectID), "user_id": .nullable(instance.userID),
            "instance_id": .string(instance.uuid), "display_name": .nullable(instance.displayName),
            "reservation_id": .nullable(instance.reservationID), "hostname": .nullable(instance.hostname),
            "instance_type": .string(flavor?.name ?? ""), "instance_type_id": .nullable(instance.instanceTypeID),
            "instance_flavor_id": .string(flavor?.flavorID ?? ""), "architecture": .nullable(instance.architecture),
            "host": .nullable(instance.host), "node": .nullable(instance.node),
            "availability_zone": .nullable(instance.availabilityZone), "cell_name": .string(instance.string("cell_name") ?? ""),
            "os_type": .nullable(instance.osType), "kernel_id": .nullable(instance.kernelID),
            "ramdisk_id": .nullable(instance.ramdiskID), "state": .nullable(instance.vmState),
            "state_description": .string(instance.taskState ?? ""), "access_ip_v4": object["access_ip_v4"] ?? .null,
            "access_ip_v6": object["access_ip_v6"] ?? .null, "metadata": object["metadata"] ?? [:],
        ]
        let root = flavor?.rootGiB ?? instance.rootGiB
        let ephemeral = flavor?.ephemeralGiB ?? instance.ephemeralGiB
        payload["memory_mb"] = .nullable(flavor?.memoryMiB ?? instance.memoryMiB)
        payload["vcpus"] = .nullable(flavor?.vcpus ?? instance.vcpus)
        payload["root_gb"] = .nullable(root)
        payload["ephemeral_gb"] = .nullable(ephemeral)
        payload["disk_gb"] = .nullable(root &+ ephemeral)
        let progress = instance.progress ?? 0
        payload["progress"] = progress == 0 ? "" : .nullable(progress)
        payload["created_at"] = .string(instance.createdAt.map(Self.withZone) ?? "None")
        payload["launched_at"] = .string(instance.launchedAt?.entityText ?? "")
        payload["terminated_at"] = .string(instance.terminatedAt?.entityText ?? "")
        payload["deleted_at"] = .string(instance.deletedAt?.entityText ?? "")
        payload["image_ref_url"] = .string(imageURL(instance.imageRef ?? ""))
        payload["image_meta"] = .object(Self.imageMeta(instance))
        if let networkInfo { payload["fixed_ips"] = .array(networkInfo.flatMap(Self.fixedIPs)) }
        for (key, value) in extra where !NotificationKind.versionedOnlyKeys.contains(key) { payload[key] = value }
        if let fault {
            payload["exception"] = .string(fault.message)
            payload["message"] = .string(String(fault.message.prefix(255)))
            payload["code"] = .nullable(fault.code)
        }
        return .object(payload)
    }

    private func imageURL(_ id: String) -> String { imageEndpoint.map { "\($0)/images/\(id)" } ?? id }

    /// Python's str() of a time with a zone: "2026-11-22 21:48:50+00:00".
    private static func withZone(_ time: NovaTime) -> String { time.notificationText.prefix(19) + "+00:00" }

    private static func imageMeta(_ instance: Instance) -> [String: JSONValue] {
        var meta: [String: JSONValue] = [:]
        for (key, value) in instance.object["system_metadata"]?.objectValue ?? [:] where key.hasPrefix("image_") {
            meta[String(key.dropFirst("image_".count))] = value
        }
        return meta
    }

    private static func fixedIPs(_ vif: VIF) -> [JSONValue] {
        vif.fixedIPs.map { ip in
            var entry = ip.objectValue ?? [:]
            entry["label"] = vif.json["network"]?["label"] ?? .null
            entry["vif_mac"] = .string(vif.address)
            return .object(entry)
        }
    }
}
