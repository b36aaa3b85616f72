// stop, start, reboot, pause, unpause (RPC reference §5.3, §5.4).
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration

extension ComputeManager {
    func stop(_ instance: inout Instance, isClean: Bool, _ operation: Operation) async throws {
        let context = operation.context
        var expected: [String?] = ["powering-off"]
        // The API sets no task where it already knows that nothing runs.
        if [.noState, .shutdown, .crashed].contains(try await powerState(of: instance)) { expected.append(nil) }
        await notify(instance, "power_off", .start, context)
        try await powerOff(&instance, isClean: isClean, operation)
        try await endTask(of: &instance, as: "stopped", expecting: expected, context)
        await notify(instance, "power_off", .end, context)
    }

    func powerOff(_ instance: inout Instance, isClean: Bool, _ operation: Operation) async throws {
        let options = services.configuration.compute
        guard isClean else {
            return try await services.driver.powerOff(instance: instance, timeout: .zero, retryInterval: .zero)
        }
        try await load("system_metadata", of: &instance, context: operation.context)
        let ofImage = instance.systemMetadata["image_os_shutdown_timeout"].flatMap { Int($0) }
        let timeout = ofImage.map { Duration.seconds(min(max($0, 0), 86_400)) } ?? options.shutdownTimeout
        try await services.driver.powerOff(
            instance: instance, timeout: timeout, retryInterval: options.shutdownRetryInterval)
    }

    func start(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "power_on", .start, context)
        let networkInfo = try await networkInfo(of: &instance, operation)
        try await services.driver.powerOn(instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
        try await endTask(of: &instance, as: "active", expecting: ["powering-on"], context)
        await notify(instance, "power_on", .end, context)
    }

    func pause(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "pause", .start, context)
        try await services.driver.pause(instanceUUID: instance.uuid)
        try await endTask(of: &instance, as: "paused", expecting: ["pausing"], context)
        await notify(instance, "pause", .end, context)
    }

    func unpause(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "unpause", .start, context)
        try await services.driver.unpause(instanceUUID: instance.uuid)
        try await endTask(of: &instance, as: "active", expecting: ["unpausing"], context)
        await notify(instance, "unpause", .end, context)
    }

    func reboot(_ instance: inout Instance, isSoft: Bool, _ operation: Operation) async throws {
        let context = operation.context
        let suffix = isSoft ? "" : "_hard"
        let before = instance.vmState
        let networkInfo = try await networkInfo(of: &instance, operation)
        await notify(instance, "reboot", .start, context)
        instance.powerState = try await powerState(of: instance).rawValue
        instance.taskState = "reboot_pending" + suffix
        try await services.conductor.save(
            &instance, expecting: ["rebooting" + suffix, "reboot_pending" + suffix, "reboot_started" + suffix],
            context: context)
        instance.taskState = "reboot_started" + suffix
        try await services.conductor.save(&instance, expecting: ["reboot_pending" + suffix], context: context)
        do {
            try await reboot(instance, isSoft: isSoft, interfaces: networkInfo.map(\.interfaceRequest), operation)
        } catch {
            let exception = NovaException(error)
            guard try await powerState(of: instance) == .running, !(error is CancellationError) else {
                try await setErrorState(&instance, context)
                throw error
            }
            operation.logger.warning("reboot failed, the guest runs", metadata: ["error": "\(exception)"])
            await addFault(exception, operation, instance)
            await notify(instance, "reboot", .error, context, fault: exception)
        }
        try await endTask(of: &instance, as: before == "rescued" ? "rescued" : "active", context)
        await notify(instance, "reboot", .end, context)
    }

    private func reboot(
        _ instance: Instance, isSoft: Bool, interfaces: [InterfaceRequest], _ operation: Operation
    ) async throws {
        if isSoft {
            do {
                let timeout = services.configuration.compute.softRebootTimeout
                if try await services.driver.softReboot(instance: instance, timeout: timeout) { return }
                operation.logger.info("the guest did not reboot by itself; hard reboot")
            } catch where !(error is CancellationError) {
                operation.logger.warning("soft reboot failed; hard reboot", metadata: ["error": "\(error)"])
            }
        }
        try await services.driver.powerOff(instance: instance, timeout: .zero, retryInterval: .zero)
        try await services.driver.powerOn(instance: instance, interfaces: interfaces)
    }

    /// `vm_state` error, whatever the task; stored also where the operation was cancelled.
    func setErrorState(_ instance: inout Instance, _ context: RequestContext) async throws {
        var failed = instance
        failed.object.resetChanges()
        failed.vmState = "error"
        let conductor = services.conductor
        instance = try await shielded { [failed] in
            var failed = failed
            do { try await conductor.save(&failed, context: context) } catch
                where NovaException.isClass("InstanceNotFound", error) {}
            return failed
        }
    }
}
