// nova.compute.manager.ComputeManager, cut to what this service carries out: operations on instances, each surrounded by its
// wrappers, started from RPC messages, from the repair after a restart and from the power state sync.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import ServiceMetrics

/// Carries out operations on instances. Its `runners` are a service of their own.
package final class ComputeManager: Sendable {
    package let services: ComputeServices
    package let runners = InstanceRunners()
    package let externalEvents = ExternalEvents()
    let buildLimit: ConcurrencyLimit
    let snapshotLimit: ConcurrencyLimit

    package init(_ services: ComputeServices) {
        self.services = services
        buildLimit = ConcurrencyLimit(services.configuration.compute.maximumConcurrentBuilds)
        snapshotLimit = ConcurrencyLimit(services.configuration.compute.maximumConcurrentSnapshots)
    }

    var host: String { services.configuration.host }
    var profile: ReleaseProfile { services.conductor.profile }

    func logger(_ context: RequestContext, instance instanceUUID: String? = nil) -> Logger {
        var logger = services.logger
        if !context.requestID.isEmpty { logger[metadataKey: "request_id"] = .string(context.requestID) }
        if let instanceUUID { logger[metadataKey: "instance"] = .string(instanceUUID) }
        return logger
    }
}

/// One operation on one instance: its name, its wrappers and who asked.
struct Operation: Sendable {
    /// The method's name, "stop_instance".
    let name: String
    /// Name of its action event, "compute_stop_instance".
    let eventName: String
    let wrappers: Wrappers
    let context: RequestContext
    /// For the notification of an exception.
    let arguments: [String: JSONValue]
    let migration: Migration?
    let logger: Logger
}

extension ComputeManager {
    func operation(
        _ name: String, on instance: Instance, wrappers: Wrappers? = nil, arguments: [String: JSONValue] = [:],
        context: RequestContext
    ) -> Operation {
        // Builds have always been recorded under the name of Nova's inner function.
        let eventName = name == "build_and_run_instance" ? "compute__do_build_and_run_instance" : "compute_\(name)"
        let migration = arguments["migration"].flatMap { $0.isNull ? nil : try? Migration(primitive: $0) }
        return Operation(
            name: name, eventName: eventName, wrappers: wrappers ?? RPCMethodTable.byName[name]?.wrappers ?? [],
            context: context, arguments: arguments, migration: migration,
            logger: logger(context, instance: instance.uuid))
    }

    /// Queues an operation for its instance's runner.
    /// - Parameter waits: true: returns its result, or throws its failure. False: returns once it is queued.
    /// - Parameter refused: carried out instead where the runner refuses it; nil: the failure is recorded.
    func enqueue(
        _ operation: Operation, _ kind: InstanceRequestKind, _ instance: Instance,
        interruption: Interruption = Interruption(), waits: Bool,
        refused: (@Sendable (NovaException) async -> Void)? = nil,
        body: @escaping @Sendable (inout Instance) async throws -> JSONValue
    ) async throws -> JSONValue {
        let work: @Sendable () async -> Result<JSONValue, any Error> = {
            var instance = instance
            do { return .success(try await self.wrapped(operation, &instance, body: body)) } catch { return .failure(error) }
        }
        let answer: @Sendable (MailboxRefusal) async -> Result<JSONValue, any Error> = { refusal in
            // A second delete of what is gone has what it wanted.
            if refusal == .gone, kind == .terminate { return .success(.null) }
            let exception = NovaException.refused(operation.name, instance.uuid, refusal)
            if let refused { await refused(exception) } else {
                await self.recordRefusal(operation, instance, refusal, exception)
            }
            return .failure(exception)
        }
        guard waits else {
            let request = InstanceRequest(operation.name, kind, interruption: interruption) {
                if case .success = await work() { kind == .terminate } else { false }
            } refuse: { _ = await answer($0) }
            if let refusal = runners.submit(request, for: instance.uuid) { return try await answer(refusal).get() }
            return .null
        }
        return try await withCheckedThrowingContinuation { continuation in
            let request = InstanceRequest(operation.name, kind, interruption: interruption) {
                let result = await work()
                continuation.resume(with: result)
                if case .success = result { return kind == .terminate }
                return false
            } refuse: { continuation.resume(with: await answer($0)) }
            if let refusal = runners.submit(request, for: instance.uuid) {
                // The mailbox did not keep it, so nobody else will answer.
                Task { continuation.resume(with: await answer(refusal)) }
            }
        }
    }

    /// What an operation leaves behind that its runner did not take.
    private func recordRefusal(
        _ operation: Operation, _ instance: Instance, _ refusal: MailboxRefusal, _ exception: NovaException
    ) async {
        operation.logger.warning("\(operation.name) was not carried out", metadata: ["error": "\(exception.details)"])
        services.metrics.operations.increment(operation.name, "refused")
        guard refusal != .gone else { return }
        if operation.wrappers.contains(.actionEvent) {
            _ = try? await startEvent(operation, instance)
            await finishEvent(operation, instance, exception)
        }
        guard refusal != .terminating else { return }
        // Only the task this message stands for: another operation may have set its own since.
        var reverted = instance
        reverted.object.resetChanges()
        let expected = reverted.taskState
        reverted.taskState = nil
        _ = try? await services.conductor.save(&reverted, expecting: [expected], context: operation.context)
    }
}

extension NovaException {
    static func refused(_ method: String, _ instanceUUID: String, _ refusal: MailboxRefusal) -> NovaException {
        switch refusal {
        case .full:
            NovaException(
                "NovaException", "Too many operations wait for instance \(instanceUUID); try again later", code: 503)
        case .closed:
            NovaException(
                "NovaException", "The compute service is shutting down; try \(method) again later", code: 503)
        case .terminating:
            .instanceInvalidState(instanceUUID, attribute: "task_state", state: "deleting", method: method)
        case .gone: .instanceNotFound(instanceUUID)
        }
    }
}
