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
    private let options: Options
    private let legacy: LegacyPayload
    private let versioned: VersionedPayload
    private let now: @Sendable () -> NovaTime
    private let logger: Logger

    package init(
        notifier: any Notifier, options: Options, logger: Logger, now: @escaping @Sendable () -> NovaTime = { .now }
    ) {
        self.notifier = notifier
        self.options = options
        self.logger = logger
        self.now = now
        legacy = LegacyPayload(imageEndpoint: options.imageEndpoint)
        versioned = VersionedPayload(instanceName: { Self.name(of: $0) })
    }

    package func instance(
        _ instance: Instance, action: String, phase: NotificationPhase?, networkInfo: NetworkInfo?,
        extra: [String: JSONValue], fault: NovaException?, context: RequestContext
    ) async {
        let kind = NotificationKind.of(action)
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
        let failure = await withTaskGroup(of: String?.self) { group in
            group.addTask { [notifier] in
                do {
                    try await notifier.notify(
                        topic: topic, publisherID: publisher, eventType: event, priority: priority, payload: payload,
                        context: context)
                    return nil
                } catch {
                    return "\(error)"
                }
            }
            group.addTask { [patience = options.patience] in
                try? await Task.sleep(for: patience)
                return "not accepted within \(patience)"
            }
            let first = await group.next() ?? nil
            group.cancelAll()
            return first
        }
        if let failure {
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
    private static func name(of instance: Instance) -> String {
        let digits = String(instance.id ?? 0, radix: 16)
        return "instance-" + String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    }
}
