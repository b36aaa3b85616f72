// What a restart finds and what it does about it (`_init_instance`, contract §5.3), and what a power state that nobody asked for
// means (`_sync_instance_power_state`, contract §5.7): decisions on values, without effects.
package import ComputeDriver

/// What is to be done for an instance when the service starts.
package enum RepairDecision: Equatable, Sendable {
    case nothing
    /// The record says deleted, and the row is still there.
    case completeDeletion
    /// A step that died with the service cannot be continued.
    case markError
    case delete
    case reboot(isSoft: Bool)
    case stop, start, unpause
    /// A resize that died with the service: back to the old size, or on to the new one.
    case repairResize
    /// A task ended with the service, or before it could say so.
    case settle(vmState: String?)
    /// The host was started anew: the guest ran before.
    case resumeOnHostBoot

    /// - Parameters: the record's states, and what the driver says.
    package init(
        vmState: String?, taskState: String?, recordedPowerState: Int?, powerState: PowerState,
        resumesGuestsOnHostBoot: Bool
    ) {
        let isRunning = powerState == .running
        switch (vmState, taskState) {
        case ("soft-delete", _): self = .nothing
        case ("error", let task) where task != "deleting" && task != "resize_migrating": self = .nothing
        case ("deleted", _): self = .completeDeletion
        case (_, "deleting"): self = .delete
        case ("building", _), (_, "scheduling"), (_, "block_device_mapping"), (_, "networking"), (_, "spawning"),
            (_, "rebuilding"), (_, "rebuild_block_device_mapping"), (_, "rebuild_spawning"):
            self = .markError
        case (_, "resize_migrating"), (_, "resize_finish"): self = .repairResize
        // The message of the next step waits in the broker.
        case (_, "resize_migrated"), (_, "resize_reverting"): self = .nothing
        case (_, "reboot_pending"), (_, "reboot_pending_hard"):
            self = .reboot(isSoft: isRunning && taskState == "reboot_pending")
        case (_, "reboot_started"), (_, "reboot_started_hard"), (_, "rebooting"), (_, "rebooting_hard"):
            self = isRunning ? .settle(vmState: "active") : .reboot(isSoft: false)
        case (_, "pausing") where isRunning, (_, "unpausing") where isRunning: self = .settle(vmState: "active")
        case (_, "pausing") where powerState == .paused: self = .settle(vmState: "paused")
        case (_, "unpausing") where powerState == .paused: self = .unpause
        case (_, "powering-off"): self = .stop
        case (_, "powering-on"): self = .start
        case (_, let task?) where Self.abandoned.contains(task): self = .settle(vmState: nil)
        default:
            let wasRunning = recordedPowerState == PowerState.running.rawValue
            let isDown = [.noState, .shutdown, .crashed].contains(powerState)
            self =
                resumesGuestsOnHostBoot && vmState == "active" && wasRunning && isDown ? .resumeOnHostBoot : .nothing
        }
    }

    /// Tasks that die with the service and leave the server as it was.
    private static let abandoned: Set<String> = [
        "image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup",
        "shelving", "shelving_image_pending_upload", "shelving_image_uploading", "shelving_offloading", "soft-deleting", "restoring",
        "resize_prep", "migrating", "suspending", "resuming", "rescuing", "unrescuing", "updating_password",
    ]
}

/// What a power state that differs from the server's state calls for.
package enum PowerSyncDecision: Equatable, Sendable {
    case nothing
    case stop
    /// Stopped in the record and running: it must not.
    case forceStop
    case delete

    package init(vmState: String?, powerState: PowerState, isShutdownTerminate: Bool) {
        switch (vmState, powerState) {
        case ("active", .shutdown), ("active", .crashed): self = isShutdownTerminate ? .delete : .stop
        case ("active", .suspended): self = .stop
        case ("stopped", .running), ("stopped", .paused), ("stopped", .suspended): self = .forceStop
        case ("paused", .shutdown), ("paused", .crashed): self = .forceStop
        default: self = .nothing
        }
    }
}
