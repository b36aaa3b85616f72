// Repair after a restart, the power state sync and the reaper, as the host's own work asks for them (`InstanceStartup`). What may
// take long goes to the instance's runner, so that one slow guest does not hold up the start of the service.
package import ComputeDriver
import JSON
import Logging
package import NovaObjects
package import OsloMessaging
import ServiceConfiguration

extension ComputeManager: InstanceStartup {
    package func initInstance(_ instance: Instance, context: RequestContext) async {
        guard instance.host == host else { return }
        let operation = operation("init_instance", on: instance, wrappers: [], context: context)
        let powerState: PowerState
        do { powerState = try await self.powerState(of: instance) } catch {
            return operation.logger.error("power state of the instance unknown", metadata: ["error": "\(error)"])
        }
        let decision = RepairDecision(
            vmState: instance.vmState, taskState: instance.taskState, recordedPowerState: instance.powerState,
            powerState: powerState,
            resumesGuestsOnHostBoot: services.configuration.compute.resumesGuestsOnHostBoot)
        if decision != .nothing {
            operation.logger.info(
                "instance is repaired after the restart",
                metadata: [
                    "vm_state": "\(instance.vmState ?? "-")", "task_state": "\(instance.taskState ?? "-")",
                    "decision": "\(decision)",
                ])
        }
        await tried("repair the instance", operation) {
            try await self.carryOut(decision, instance, powerState, operation)
        }
    }

    private func carryOut(
        _ decision: RepairDecision, _ instance: Instance, _ powerState: PowerState, _ operation: Operation
    ) async throws {
        let context = operation.context
        var instance = instance
        switch decision {
        case .nothing: break
        case .completeDeletion:
            try await complete(&instance, operation)
            await notify(instance, "delete", .end, context)
        case .markError:
            instance.vmState = "error"
            instance.taskState = nil
            try await services.conductor.save(&instance, context: context)
        case .settle(let vmState):
            if let vmState { instance.vmState = vmState }
            instance.taskState = nil
            instance.powerState = powerState.rawValue
            try await services.conductor.save(&instance, context: context)
        case .repairResize: try await requestResizeRepair(instance, context)
        case .delete: try await requestTerminate(instance, context)
        case .reboot(let isSoft): try await requestReboot(instance, isSoft: isSoft, context: context)
        case .stop: try await requestStop(instance, isClean: true, context: context)
        case .start: try await requestSimple("start_instance", instance, context) { try await self.start(&$0, $1) }
        case .unpause: try await requestSimple("unpause_instance", instance, context) { try await self.unpause(&$0, $1) }
        case .resumeOnHostBoot:
            let resumed = self.operation("resume_on_host_boot", on: instance, wrappers: [], context: context)
            _ = try await enqueue(resumed, .request, instance, waits: false) { instance in
                let networkInfo = try await self.networkInfo(of: &instance, resumed)
                try await self.services.driver.powerOn(
                    instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
                return .null
            }
        }
    }

    /// An operation without further arguments, queued and not waited for.
    private func requestSimple(
        _ name: String, _ instance: Instance, _ context: RequestContext,
        _ body: @escaping @Sendable (inout Instance, Operation) async throws -> Void
    ) async throws {
        let operation = operation(name, on: instance, context: context)
        _ = try await enqueue(operation, .request, instance, waits: false) { instance in
            try await body(&instance, operation)
            return .null
        }
    }

    package func powerStateChanged(_ instance: Instance, to powerState: PowerState, context: RequestContext) async {
        let operation = operation("sync_power_state", on: instance, wrappers: [], context: context)
        let request = InstanceRequest(operation.name, .event) {
            await self.tried("bring power state and record together", operation) {
                try await self.syncPowerState(of: instance, operation)
            }
            return false
        }
        if let refusal = runners.submit(request, for: instance.uuid) {
            operation.logger.debug("power state not looked at now", metadata: ["reason": "\(refusal)"])
        }
    }

    /// In the instance's runner, so that nothing else changes it meanwhile; asks both sides anew, because the news may have waited.
    private func syncPowerState(of stale: Instance, _ operation: Operation) async throws {
        let context = operation.context
        var instance = try await fetchInstance(stale.uuid, context: context)
        guard instance.taskState == nil, instance.host == host, !instance.isDeleted else { return }
        let powerState = try await powerState(of: instance)
        if instance.powerState != powerState.rawValue {
            instance.powerState = powerState.rawValue
            try await services.conductor.save(&instance, context: context)
        }
        let decision = PowerSyncDecision(
            vmState: instance.vmState, powerState: powerState, isShutdownTerminate: instance.isShutdownTerminate)
        guard decision != .nothing else { return }
        operation.logger.warning(
            "the machine is not in the state of its record",
            metadata: ["vm_state": "\(instance.vmState ?? "-")", "power_state": "\(powerState)", "decision": "\(decision)"])
        if decision == .delete {
            instance.taskState = "deleting"
            try await act("delete", &instance, operation)
            return try await requestTerminate(instance, context)
        }
        instance.taskState = "powering-off"
        instance.progress = 0
        try await act("stop", &instance, operation)
        // Here and now: a request in between would find a task that is not its own.
        let stop = self.operation("stop_instance", on: instance, context: context)
        _ = try await wrapped(stop, &instance) { instance in
            try await self.stop(&instance, isClean: decision == .forceStop, stop)
            return .null
        }
    }

    /// What the API would do: set the task where there is none, and record the action.
    private func act(_ action: String, _ instance: inout Instance, _ operation: Operation) async throws {
        try await services.conductor.save(&instance, expecting: [nil], context: operation.context)
        await tried("record the action", operation) {
            _ = try await self.services.conductor.callClass(
                "InstanceAction", "action_start", [.string(instance.uuid), .string(action)], ["want_result": false],
                context: operation.context)
        }
    }

    package func request(_ work: DueWork, for instance: Instance, context: RequestContext) async {
        let operation = operation("due_work", on: instance, wrappers: [], context: context)
        await tried("begin what is due", operation) {
            switch work {
            case .delete: try await requestTerminate(instance, context)
            case .offload:
                var instance = instance
                instance.taskState = "shelving_offloading"
                try await services.conductor.save(&instance, expecting: [nil], context: context)
                try await requestSimple("shelve_offload_instance", instance, context) {
                    try await self.offload(&$0, isClean: false, $1)
                }
            }
        }
    }

    package func reap(_ instance: Instance, context: RequestContext) async {
        let operation = operation("reap_instance", on: instance, wrappers: [], context: context)
        let request = InstanceRequest(operation.name, .event) {
            await self.tried("end the machine of a deleted instance", operation) {
                operation.logger.warning("the machine of a deleted instance is ended")
                let interfaces = self.services.network.cached(instance).map(\.interfaceRequest)
                try await self.services.driver.destroy(instance: instance, interfaces: interfaces, destroysDisks: true)
            }
            return false
        }
        if let refusal = runners.submit(request, for: instance.uuid) {
            operation.logger.debug("deleted instance not looked at now", metadata: ["reason": "\(refusal)"])
        }
    }
}
