// After a failed build (RPC reference §5.1): another host tries, or the server gets its fault and its error state.
import JSON
import Logging
import NovaObjects
import OsloMessaging

extension ComputeManager {
    /// Carries the consequences out. Its steps do not depend on one another: one that fails is logged.
    /// - Returns: what the action's event is to end with; nil where it ends well, as on a reschedule.
    func finish(_ failure: BuildFailure, _ instance: inout Instance, _ build: Build) async -> NovaException? {
        switch failure {
        case .disappeared:
            build.operation.logger.info("the instance was deleted while it was built")
            await cleanUpNetwork(&instance, build)
            await deleteAllocations(of: instance, build.operation)
            await services.books.buildFinished(successfully: false)
            return nil
        case .reschedule(let cause, let byPolicy):
            let exception = NovaException.rescheduled(instance.uuid, byPolicy: byPolicy, cause: cause)
            if var retry = build.request.filterProperties["retry"]?.objectValue {
                retry["exc"] = .array([.string(exception.message)])
                retry["exc_reason"] = .string(cause.message)
                if await reschedule(&instance, retry: retry, exception, build) {
                    if !byPolicy { await services.books.buildFinished(successfully: false) }
                    return nil
                }
            }
            await fail(&instance, exception, build)
            if !byPolicy {
                await deleteAllocations(of: instance, build.operation)
                await services.books.buildFinished(successfully: false)
            }
            return exception
        case .abort(let cause):
            let exception =
                cause.className == "BuildAbortException"
                ? cause : NovaException.buildAbort(instance.uuid, cause.message, cause: cause)
            await fail(&instance, exception, build)
            await deleteAllocations(of: instance, build.operation)
            await services.books.buildFinished(successfully: false)
            return exception
        }
    }

    /// True where the conductor has it again.
    private func reschedule(
        _ instance: inout Instance, retry: [String: JSONValue], _ exception: NovaException, _ build: Build
    ) async -> Bool {
        build.operation.logger.warning(
            "the build goes to another host", metadata: ["error": "\(exception.details)"])
        await cleanUpNetwork(&instance, build)
        instance.host = nil
        instance.node = nil
        instance.launchedOn = nil
        instance.set("availability_zone", to: .null)
        instance.taskState = "scheduling"
        do {
            try await services.conductor.save(&instance, context: build.context)
            await deleteAllocations(of: instance, build.operation)
            var properties = build.request.filterProperties
            properties["retry"] = .object(retry)
            let received = build.request.received
            try await services.conductor.castTask(
                "build_instances", version: "1.19",
                [
                    "instances": .array([instance.primitive]), "image": build.request.image,
                    "filter_properties": .object(properties), "admin_password": received["admin_password"] ?? .null,
                    "injected_files": received["injected_files"] ?? .array([]),
                    "requested_networks": received["requested_networks"] ?? .null,
                    "security_groups": received["security_groups"] ?? .null,
                    "request_spec": received["request_spec"] ?? .null,
                    "host_lists": .array([received["host_list"] ?? .null]),
                ], context: build.context)
            return true
        } catch {
            build.operation.logger.error("the build could not be handed on", metadata: ["error": "\(error)"])
            return false
        }
    }

    private func fail(_ instance: inout Instance, _ exception: NovaException, _ build: Build) async {
        await cleanUpNetwork(&instance, build)
        await addFault(exception, build.operation, instance)
        instance.host = nil
        instance.node = nil
        instance.vmState = "error"
        instance.taskState = nil
        var failed = instance
        await tried("store the error state", build.operation) {
            try await self.services.conductor.save(&failed, context: build.context)
        }
        instance = failed
    }

    private func cleanUpNetwork(_ instance: inout Instance, _ build: Build) async {
        let requested = build.request.requestedNetworks
        var cleaned = instance
        // Changes that belong to the attempt that failed are not to be stored with this.
        cleaned.object.resetChanges()
        await tried("give the network back", build.operation) {
            try await self.services.network.deallocate(for: cleaned, requested: requested, context: build.context)
            cleaned.note(networkInfo: [])
            cleaned.systemMetadata["network_allocated"] = "False"
            try await self.services.conductor.save(&cleaned, context: build.context)
        }
        instance = cleaned
    }
}
