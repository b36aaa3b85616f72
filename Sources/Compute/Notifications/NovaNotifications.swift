// Notifications as Nova emits them (contract §10): unversioned, versioned or both, as configured, each to its topics. They
// tell what happens and decide nothing: a broker that takes none is logged, waited for a bounded time, and left behind.
package import JSON
package import Logging
package import NovaObjects
package import OsloMessaging
package import ServiceConfiguration

package struct NovaNotifications: InstanceNotifications {
    package struct Options: Sendable {
        package var notifications: NotificationOptions
        /// `[DEFAULT] host`.
        package var host: String
        /// Endpoint of the image service, for image_ref_url.
        package var imageEndpoint: String?
        /// `instance_usage_audit_period`: "month", "day", "hour" or "year".
        package var auditPeriod: String
        /// How long one message may hold up an operation.
        package var patience: Duration

        package init(
            notifications: NotificationOptions, host: String, imageEndpoint: String? = nil, auditPeriod: String = "month",
            patience: Duration = .seconds(5)
        ) {
            self.notifications = notifications
            self.host = host
            self.imageEndpoint = imageEndpoint
            self.auditPeriod = auditPeriod
            self.patience = patience
        }
    }

    private let notifier: any Notifier
    private let conductor: Conductor?
    private let options: Options
    private let legacy: LegacyPayload
    private let versioned: VersionedPayload
    private let now: @Sendable () -> NovaTime
    private let logger: Logger

    /// - Parameter conductor: where fields come from that a payload needs and a message left out.
    /// - Parameter instanceName: `instance_name_template`.
    package init(
        notifier: any Notifier, conductor: Conductor? = nil, options: Options, logger: Logger,
        instanceName: @escaping @Sendable (Instance) -> String = Self.defaultName,
        now: @escaping @Sendable () -> NovaTime = { .now }
    ) {
        self.notifier = notifier
        self.conductor = conductor
        self.options = options
        self.logger = logger
        self.now = now
        legacy = LegacyPayload(imageEndpoint: options.imageEndpoint)
        versioned = VersionedPayload(instanceName: instanceName)
    }

    package func instance(
        _ instance: Instance, action: String, phase: NotificationPhase?, networkInfo: NetworkInfo?,
        extra: [String: JSONValue], fault: NovaException?, context: RequestContext
    ) async {
        let kind = NotificationKind.of(action)
        guard options.notifications.sendsLegacy || options.notifications.sendsVersioned else { return }
        let instance = await complete(instance, for: kind, context: context)
        var extra = extra
        if action == "exists" { addAuditPeriod(to: &extra) }
        let priority = fault != nil || phase == .error ? "ERROR" : "INFO"
        if options.notifications.sendsLegacy, let event = kind.legacyEvent(phase) {
            await sendLegacy(
                "compute.instance.\(event)", priority: phase == .error ? "ERROR" : "INFO",
                payload: legacy.make(instance, networkInfo: networkInfo, extra: extra, fault: fault), context: context)
        }
        if options.notifications.sendsVersioned, let payload = kind.payload {
            let info = networkInfo ?? (instance.infoCache?.networkInfo ?? []).map { VIF($0) }
            await sendVersioned(
                "instance.\(action)" + (phase.map { ".\($0.rawValue)" } ?? ""), priority: priority,
                payload: versioned.make(
                    payload, instance, kind: kind, networkInfo: info, extra: extra,
                    fault: fault.map { VersionedPayload.exception($0, function: action) } ?? .null, context: context),
                context: context)
        }
    }

    package func exception(
        _ error: NovaException, method: String, arguments: [String: JSONValue], context: RequestContext
    ) async {
        if options.notifications.sendsLegacy {
            // Nova's rule for what must not be told.
            let told = arguments.filter { !$0.key.contains("_pass") }
            await sendLegacy(
                method, priority: "ERROR", payload: ["exception": .string(error.message), "args": .object(told)],
                context: context)
        }
        if options.notifications.sendsVersioned {
            await sendVersioned(
                "compute.exception", priority: "ERROR", payload: VersionedPayload.exception(error, function: method),
                context: context)
        }
    }

    // MARK: Fields a message left out

    /// The instance with what payloads show of it. Without an answer in time it goes as it is: the news matters more.
    private func complete(_ instance: Instance, for kind: NotificationKind, context: RequestContext) async -> Instance {
        var fields = ["flavor", "metadata", "system_metadata"]
        if options.notifications.sendsVersioned {
            fields.append("info_cache")
            if kind.payload == .create { fields += ["keypairs", "tags"] }
            if kind.payload == .create || kind.payload == .rebuild { fields.append("trusted_certs") }
        }
        let missing = fields.filter { !instance.object.isSet($0) }
        guard let conductor, !missing.isEmpty else { return instance }
        let loaded = await bounded {
            let attributes = JSONValue.array(missing.map { .string($0) })
            let answer = try await conductor.callClass(
                "Instance", "get_by_uuid", [.string(instance.uuid)], ["expected_attrs": attributes], context: context)
            return try Instance(primitive: answer)
        }
        var complete = instance
        switch loaded {
        case .success(let loaded):
            for field in missing { loaded.object[field].map { complete.object.load(field, $0) } }
        case .failure(let failure):
            logger.debug(
                "notification goes without fields that were not loaded",
                metadata: ["instance": "\(instance.uuid)", "fields": "\(missing)", "reason": "\(failure)"])
        }
        return complete
    }

    private struct OutOfPatience: Error, CustomStringConvertible {
        let patience: Duration
        var description: String { "not done within \(patience)" }
    }

    /// What `body` comes to, or a failure once the patience is over.
    private func bounded<Value: Sendable>(
        _ body: @escaping @Sendable () async throws -> Value
    ) async -> Result<Value, any Error> {
        let patience = options.patience
        return await withTaskGroup(of: Result<Value, any Error>.self) { group in
            group.addTask {
                do { return .success(try await body()) } catch { return .failure(error) }
            }
            group.addTask {
                try? await Task.sleep(for: patience)
                return .failure(OutOfPatience(patience: patience))
            }
            let first = await group.next()
            group.cancelAll()
            return first ?? .failure(OutOfPatience(patience: patience))
        }
    }

    // MARK: Sending

    private func sendLegacy(
        _ event: String, priority: String, payload: JSONValue, context: RequestContext
    ) async {
        for topic in options.notifications.topics {
            await send(topic, "compute.\(options.host)", event, priority, payload, context)
        }
    }

    private func sendVersioned(
        _ event: String, priority: String, payload: JSONValue, context: RequestContext
    ) async {
        for topic in options.notifications.versionedTopics {
            await send(topic, "nova-compute:\(options.host)", event, priority, payload, context)
        }
    }

    private func send(
        _ topic: String, _ publisher: String, _ event: String, _ priority: String, _ payload: JSONValue,
        _ context: RequestContext
    ) async {
        let outcome = await bounded { [notifier] in
            try await notifier.notify(
                topic: topic, publisherID: publisher, eventType: event, priority: priority, payload: payload,
                context: context)
        }
        if case .failure(let failure) = outcome {
            logger.warning(
                "notification was not sent", metadata: ["event": "\(event)", "topic": "\(topic)", "reason": "\(failure)"])
        }
    }

    // MARK: What is computed

    /// The period that runs now, from its beginning; a periodic audit names another.
    private func addAuditPeriod(to extra: inout [String: JSONValue]) {
        guard extra["audit_period_beginning"] == nil || extra["audit_period_ending"] == nil else { return }
        let now = now()
        let text = now.fieldText
        let beginning =
            switch options.auditPeriod.prefix(while: { $0 != "@" }) {
            case "hour": text.prefix(13) + ":00:00Z"
            case "day": text.prefix(10) + "T00:00:00Z"
            case "year": text.prefix(4) + "-01-01T00:00:00Z"
            default: text.prefix(7) + "-01T00:00:00Z"
            }
        let start = NovaTime(String(beginning)) ?? now
        extra["audit_period_beginning"] = .string(String(start.notificationText.prefix(19)))
        extra["audit_period_ending"] = .string(now.notificationText)
    }

    /// "instance-00000007", Nova's default template.
    package static func defaultName(_ instance: Instance) -> String {
        let digits = String(instance.id ?? 0, radix: 16)
        return "instance-" + String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    }
}
