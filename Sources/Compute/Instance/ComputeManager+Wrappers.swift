// The behaviour that Nova's decorators give to operations (RPC reference §2), outermost first: E, T, A, M, F, the body. What has
// to happen after a failure happens also where the operation was cancelled.
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceMetrics

/// Runs `body` to its end, also where the surrounding task is cancelled: for what must not be left half done. Every wait in
/// such a body has a deadline of its own.
func shielded<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
    try await Task { try await body() }.value
}

func shielded<Result: Sendable>(_ body: @escaping @Sendable () async -> Result) async -> Result {
    await Task { await body() }.value
}

/// A failure that the operation has dealt with: the action's event tells of it, the other wrappers have nothing to do.
struct HandledFailure: Error {
    let exception: NovaException
}

extension ComputeManager {
    /// Carries `body` out within the wrappers of `operation`. What it throws is a `NovaException`, recorded and logged.
    func wrapped(
        _ operation: Operation, _ instance: inout Instance, body: (inout Instance) async throws -> JSONValue
    ) async throws -> JSONValue {
        let metrics = services.metrics
        let start = ContinuousClock.now
        metrics.operationsInFlight.add(operation.name, amount: 1)
        defer { metrics.operationsInFlight.add(operation.name, amount: -1) }
        do {
            if operation.wrappers.contains(.actionEvent) { try await startEvent(operation, instance) }
            let result = try await body(&instance)
            if operation.wrappers.contains(.actionEvent) { await finishEvent(operation, instance, nil) }
            metrics.finished(operation.name, outcome: "success", after: .now - start)
            return result
        } catch let handled as HandledFailure {
            operation.logger.error("\(operation.name) failed", metadata: ["error": "\(handled.exception)"])
            let left = instance
            if operation.wrappers.contains(.actionEvent) {
                await shielded { await self.finishEvent(operation, left, handled.exception) }
            }
            metrics.finished(operation.name, outcome: "failure", after: .now - start)
            throw handled.exception
        } catch {
            let exception = NovaException(error)
            let left = instance
            await shielded { await self.record(exception, of: operation, on: left) }
            metrics.finished(operation.name, outcome: "failure", after: .now - start)
            throw exception
        }
    }

    /// Measures and reports an operation on the host itself.
    func wrappedHost(
        _ name: String, arguments: [String: JSONValue], context: RequestContext, body: () async throws -> JSONValue
    ) async throws -> JSONValue {
        let metrics = services.metrics
        let start = ContinuousClock.now
        metrics.operationsInFlight.add(name, amount: 1)
        defer { metrics.operationsInFlight.add(name, amount: -1) }
        do {
            let result = try await body()
            metrics.finished(name, outcome: "success", after: .now - start)
            return result
        } catch {
            let exception = NovaException(error)
            metrics.finished(name, outcome: "failure", after: .now - start)
            logger(context).error("\(name) failed", metadata: ["error": "\(exception)"])
            if RPCMethodTable.byName[name]?.wrappers.contains(.exceptionNotification) == true {
                await services.notifications.exception(
                    exception, method: name, arguments: Self.withoutPasswords(arguments), context: context)
            }
            throw exception
        }
    }

    private func record(_ exception: NovaException, of operation: Operation, on instance: Instance) async {
        let logger = operation.logger
        if exception.isExpected {
            logger.info("\(operation.name) is not available", metadata: ["error": "\(exception.message)"])
        } else {
            logger.error("\(operation.name) failed", metadata: ["error": "\(exception)"])
        }
        let isGone = exception.className == "InstanceNotFound"
        if operation.wrappers.contains(.instanceFault), !isGone { await addFault(exception, operation, instance) }
        if operation.wrappers.contains(.migrationError), var migration = operation.migration {
            migration.set("status", to: "error")
            await tried("mark the migration", operation) {
                try await self.services.conductor.call(&migration, "save", context: operation.context)
            }
        }
        if operation.wrappers.contains(.actionEvent) { await finishEvent(operation, instance, exception) }
        if operation.wrappers.contains(.revertsTaskState) { await revertTaskState(exception, operation, instance) }
        if operation.wrappers.contains(.exceptionNotification) {
            await services.notifications.exception(
                exception, method: operation.name, arguments: Self.withoutPasswords(operation.arguments),
                context: operation.context)
        }
    }

    private func revertTaskState(_ exception: NovaException, _ operation: Operation, _ instance: Instance) async {
        // Somebody else has set a task since: it is not ours to clear.
        if ["UnexpectedTaskStateError", "UnexpectedDeletingTaskStateError"].contains(exception.className) { return }
        var reverted = instance
        reverted.object.resetChanges()
        // Nothing was begun: only the task this message stands for is over, not one that came meanwhile.
        let expected = exception.className == "NotImplementedError" ? [reverted.taskState] : nil
        reverted.taskState = nil
        await tried("clear the task state", operation) {
            try await self.services.conductor.save(&reverted, expecting: expected, context: operation.context)
            await self.services.books.updateUsage(reverted, context: operation.context)
        }
    }

    func startEvent(_ operation: Operation, _ instance: Instance) async throws {
        do {
            _ = try await services.conductor.callClass(
                "InstanceActionEvent", "event_start", [.string(instance.uuid), .string(operation.eventName)],
                ["want_result": false, "host": .string(host)], context: operation.context)
        } catch where NovaException.isClass("InstanceActionNotFound", error) {
            // Nothing was asked for by a user: there is no action to hang the event on.
            operation.logger.debug("no action to record the event in", metadata: ["event": "\(operation.eventName)"])
        }
    }

    func finishEvent(_ operation: Operation, _ instance: Instance, _ exception: NovaException?) async {
        await tried("record the end of the action", operation) {
            _ = try await self.services.conductor.callClass(
                "InstanceActionEvent", "event_finish_with_failure",
                [.string(instance.uuid), .string(operation.eventName)],
                [
                    "exc_val": .nullable(exception?.message), "exc_tb": .nullable(exception?.details),
                    "want_result": false,
                ], context: operation.context)
        }
    }

    /// A fault for `openstack server show`. One that cannot be stored is logged.
    func addFault(_ exception: NovaException, _ operation: Operation, _ instance: Instance) async {
        var fault = InstanceFault(
            instanceUUID: instance.uuid, code: exception.code, message: exception.message,
            details: exception.code == 500 ? exception.details : "", host: host, profile: profile)
        await tried("store the fault", operation) {
            try await self.services.conductor.call(&fault, "create", context: operation.context)
        }
    }

    /// Carries out what follows a failure; a further failure is logged and does not hide the first.
    func tried(_ what: String, _ operation: Operation, _ body: () async throws -> Void) async {
        do { try await body() } catch where NovaException.isClass("InstanceNotFound", error) {
            operation.logger.debug("could not \(what): the instance is gone")
        } catch where NovaException.isClass("InstanceActionNotFound", error)
            || NovaException.isClass("InstanceActionEventNotFound", error) {
            operation.logger.debug("could not \(what): there is none")
        } catch {
            operation.logger.warning("could not \(what)", metadata: ["error": "\(error)"])
        }
    }

    static func withoutPasswords(_ arguments: [String: JSONValue]) -> [String: JSONValue] {
        arguments.filter { !$0.key.contains("_pass") }
    }
}

extension NovaException {
    /// Not worth an error in the log: the caller asked for something there is not.
    var isExpected: Bool {
        module == "builtins" && className == "NotImplementedError" || className == "InstanceNotFound"
            || className == "InstanceInvalidState" || className == "ConsoleNotAvailable"
    }
}
