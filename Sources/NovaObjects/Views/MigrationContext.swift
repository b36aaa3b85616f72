// nova.objects.MigrationContext: what a move changes of an instance besides its flavor, from both sides, so that a revert finds
// the old one.
import JSON

package struct MigrationContext: NovaObject {
    package static let objectName = "MigrationContext"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    /// A side of the move.
    package enum Side: String, Sendable { case old, new }

    /// Fields of the instance that it has for each side, as "old_…" and "new_…".
    static let fields = ["numa_topology", "pci_requests", "pci_devices", "resources"]

    /// As nova-compute makes it for an instance that has neither NUMA cells nor PCI devices, before and after.
    package init(instanceUUID: String, migrationID: Int?, profile: ReleaseProfile) {
        self.init(in: profile)
        set("instance_uuid", to: instanceUUID)
        set("migration_id", to: migrationID)
        let requests: [String: JSONValue] = ["instance_uuid": .string(instanceUUID), "requests": []]
        for side in [Side.old, .new] {
            set(side.rawValue + "_numa_topology", to: .null)
            set(side.rawValue + "_pci_devices", to: Self.part("PciDeviceList", ["objects": []], profile))
            set(side.rawValue + "_pci_requests", to: Self.part("InstancePCIRequests", requests, profile))
            set(side.rawValue + "_resources", to: .null)
        }
    }

    package var migrationID: Int? { integer("migration_id") }

    private static func part(_ name: String, _ fields: [String: JSONValue], _ profile: ReleaseProfile) -> JSONValue {
        VersionedObject(name: name, version: profile.version(of: name), fields: fields, changes: Set(fields.keys)).primitive
    }
}

extension Instance {
    package var migrationContext: MigrationContext? { nested("migration_context") }

    /// `apply_migration_context` and `revert_migration_context`; without a context there is nothing to take.
    package mutating func take(_ side: MigrationContext.Side, of context: MigrationContext?) {
        for field in MigrationContext.fields {
            guard let value = context?.object["\(side.rawValue)_\(field)"] else { continue }
            set(field, to: value)
        }
    }

    /// Gives it a flavor and the amounts that its row keeps beside it (`_set_instance_info`).
    package mutating func take(_ flavor: Flavor) {
        set("instance_type_id", to: flavor.id)
        set("memory_mb", to: flavor.memoryMiB)
        set("vcpus", to: flavor.vcpus)
        set("root_gb", to: flavor.rootGiB)
        set("ephemeral_gb", to: flavor.ephemeralGiB)
        set("flavor", to: flavor.primitive)
    }

    /// Forgets what a resize put aside, once it is over (`_delete_stashed_flavor_info`). What is not loaded is not touched: a save
    /// would put an empty value in its place.
    package mutating func forgetResize() {
        if object.isSet("flavor") {
            set("old_flavor", to: .null)
            set("new_flavor", to: .null)
        }
        if systemMetadata["old_vm_state"] != nil { systemMetadata["old_vm_state"] = nil }
    }

    /// The state that a resize or its revert ends in: "stopped" keeps the machine off.
    package var stateBeforeResize: String { systemMetadata["old_vm_state"] ?? "active" }
}
