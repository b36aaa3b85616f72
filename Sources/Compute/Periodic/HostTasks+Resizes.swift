// `_poll_unconfirmed_resizes`: a resize that nobody has confirmed within `resize_confirm_window` seconds is confirmed for its user,
// as the API would do it. What cannot be confirmed any more is marked, so that it is not looked at again.
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration

extension HostTasks {
    func confirmResizes(_ context: RequestContext) async throws {
        let window = parts.configuration.intervals.resizeConfirmWindow
        let migrations = try await parts.conductor.unconfirmedMigrations(olderThan: window, to: host, context: context)
        for migration in migrations {
            try Task.checkCancellation()
            do { try await confirm(migration, context) } catch let error where !(error is CancellationError) {
                parts.logger.warning(
                    "resize not confirmed; the next pass tries again", error: error,
                    metadata: ["instance": "\(migration.instanceUUID ?? "-")"])
            }
        }
    }

    private func confirm(_ migration: Migration, _ context: RequestContext) async throws {
        guard let uuid = migration.instanceUUID else { return }
        var migration = migration
        let attributes = ["metadata", "system_metadata"]
        let found = try await parts.conductor.instanceRecord(uuid, attributes: attributes, context: context)
        switch UnconfirmedResize(found) {
        case .wait: return
        case .giveUp(let reason):
            parts.logger.warning("resize cannot be confirmed", metadata: ["instance": "\(uuid)", "reason": "\(reason)"])
            migration.status = "error"
            try await parts.conductor.save(&migration, context: context)
        case .confirm(let instance):
            parts.logger.info("confirming a resize for its user", metadata: ["instance": "\(uuid)"])
            migration.status = "confirming"
            try await parts.conductor.save(&migration, context: context)
            _ = try await parts.conductor.callClass(
                "InstanceAction", "action_start", [.string(uuid), "confirmResize"], ["want_result": false], context: context)
            try await parts.conductor.castCompute(
                "confirm_resize", ["instance": instance.primitive, "migration": migration.primitive],
                host: migration.sourceCompute ?? host, context: context)
        }
    }
}

/// What is to be done about a resize whose time is over.
enum UnconfirmedResize: Sendable {
    case confirm(Instance)
    /// It is on its way, or the server is on its way out.
    case wait
    case giveUp(String)

    init(_ instance: Instance?) {
        guard let instance else {
            self = .giveUp("the instance is gone")
            return
        }
        switch (instance.vmState, instance.taskState) {
        case ("error", _): self = .giveUp("the instance is in error")
        case (_, "deleting"), (_, "soft-deleting"), (_, "resize_finish"): self = .wait
        case ("resized", nil): self = .confirm(instance)
        case (let state, let task): self = .giveUp("the instance is in states \(state ?? "-")/\(task ?? "-")")
        }
    }
}
