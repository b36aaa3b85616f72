// Which notifications an action has, by name (contract §10.2): the versioned name is the action's; the legacy one differs for
// some, and some have only one of the two. Payload versions are Zed's: a payload says its own version, and readers of later
// releases take the older ones.

/// The class of a versioned payload: its name, its version, and the fields it has beside every other's.
struct PayloadClass: Sendable, Equatable {
    let name: String
    let version: String
    /// Fields taken from what the caller adds; null where the caller adds nothing.
    let extras: [String]

    static let action = PayloadClass(name: "InstanceActionPayload", version: "1.8", extras: [])
    static let create = PayloadClass(name: "InstanceCreatePayload", version: "1.12", extras: [])
    static let rebuild = PayloadClass(name: "InstanceActionRebuildPayload", version: "1.9", extras: [])
    static let rescue = PayloadClass(name: "InstanceActionRescuePayload", version: "1.3", extras: ["rescue_image_ref"])
    static let snapshot = PayloadClass(
        name: "InstanceActionSnapshotPayload", version: "1.9", extras: ["snapshot_image_id"])
    static let resizePrep = PayloadClass(name: "InstanceActionResizePrepPayload", version: "1.3", extras: ["new_flavor"])
    static let volume = PayloadClass(name: "InstanceActionVolumePayload", version: "1.6", extras: ["volume_id"])
    static let volumeSwap = PayloadClass(
        name: "InstanceActionVolumeSwapPayload", version: "1.8", extras: ["old_volume_id", "new_volume_id"])
    static let exists = PayloadClass(name: "InstanceExistsPayload", version: "2.0", extras: [])
}

struct NotificationKind: Sendable {
    /// After "compute.instance."; nil: the action has no legacy notification.
    var legacy: String?
    /// Nil: the action has no versioned notification.
    var payload: PayloadClass?
    /// The legacy notification exists for the end alone and does not say so.
    var isLegacyEndOnly = false
    /// Nova tells the volumes with it, an empty list where there are none; with the others, null.
    var tellsVolumes = false

    init(
        _ legacy: String?, _ payload: PayloadClass? = .action, isLegacyEndOnly: Bool = false, tellsVolumes: Bool = false
    ) {
        self.legacy = legacy
        self.payload = payload
        self.isLegacyEndOnly = isLegacyEndOnly
        self.tellsVolumes = tellsVolumes
    }

    /// An action that is not in the table has both, under its own name.
    static func of(_ action: String) -> NotificationKind { exceptions[action] ?? NotificationKind(action) }

    /// Keys a caller adds for the versioned payload alone.
    static let versionedOnlyKeys: Set<String> = ["rescue_image_ref", "snapshot_image_id", "new_flavor", "block_devices"]

    private static let exceptions: [String: NotificationKind] = [
        "create": NotificationKind("create", .create, tellsVolumes: true),
        "delete": NotificationKind("delete", tellsVolumes: true),
        "shutdown": NotificationKind("shutdown", tellsVolumes: true),
        "soft_delete": NotificationKind("soft_delete", tellsVolumes: true),
        "reboot": NotificationKind("reboot", tellsVolumes: true),
        "shelve": NotificationKind("shelve", tellsVolumes: true),
        "shelve_offload": NotificationKind("shelve_offload", tellsVolumes: true),
        "unshelve": NotificationKind("unshelve", tellsVolumes: true),
        "rebuild": NotificationKind("rebuild", .rebuild, tellsVolumes: true),
        "rescue": NotificationKind("rescue", .rescue),
        "snapshot": NotificationKind("snapshot", .snapshot),
        "resize_prep": NotificationKind("resize.prep", .resizePrep),
        "resize": NotificationKind("resize", tellsVolumes: true),
        "resize_finish": NotificationKind("finish_resize"),
        "resize_confirm": NotificationKind("resize.confirm"),
        "resize_revert": NotificationKind("resize.revert"),
        "live_migration_pre": NotificationKind("live_migration.pre"),
        "live_migration_post": NotificationKind("live_migration._post"),
        "live_migration_post_dest": NotificationKind("live_migration.post.dest"),
        "live_migration_rollback": NotificationKind("live_migration._rollback"),
        "live_migration_rollback_dest": NotificationKind("live_migration.rollback.dest"),
        "live_migration_abort": NotificationKind("live.migration.abort"),
        "live_migration_force_complete": NotificationKind("live.migration.force.complete"),
        "volume_attach": NotificationKind("volume.attach", .volume, isLegacyEndOnly: true),
        "volume_detach": NotificationKind("volume.detach", .volume, isLegacyEndOnly: true),
        "volume_swap": NotificationKind(nil, .volumeSwap),
        "interface_attach": NotificationKind(nil),
        "interface_detach": NotificationKind(nil),
        "create_ip": NotificationKind("create_ip", nil),
        "delete_ip": NotificationKind("delete_ip", nil),
        "exists": NotificationKind("exists", .exists),
    ]

    /// Event name after "compute.instance.", nil where the phase has none.
    func legacyEvent(_ phase: NotificationPhase?) -> String? {
        guard let legacy else { return nil }
        if isLegacyEndOnly { return phase == .end ? legacy : nil }
        return phase.map { "\(legacy).\($0.rawValue)" } ?? legacy
    }
}
