import JSON
// Fan-outs to the schedulers (contract §4.4), which filters for affinity read. A scheduler that misses one hears the
// whole list again every `scheduler_instance_sync_interval`, so a failure is logged and forgotten.
package import Logging
package import NovaObjects
package import OsloMessaging

package struct SchedulerNews: Sendable {
    private static let target = RPCTarget(topic: "scheduler", isFanout: true, version: "4.2")

    private let client: any RPCClient
    private let host: String
    private let profile: ReleaseProfile
    private let isEnabled: Bool
    private let logger: Logger

    /// - Parameter isEnabled: `[filter_scheduler] track_instance_changes`.
    package init(client: any RPCClient, host: String, profile: ReleaseProfile, isEnabled: Bool, logger: Logger) {
        self.client = client
        self.host = host
        self.profile = profile
        self.isEnabled = isEnabled
        self.logger = logger
    }

    package func updated(_ instances: [Instance], context: RequestContext) async {
        await send("update_instance_info", ["instance_info": InstanceList(instances, in: profile).primitive], context)
    }

    package func deleted(_ instanceUUID: String, context: RequestContext) async {
        await send("delete_instance_info", ["instance_uuid": .string(instanceUUID)], context)
    }

    package func all(_ instanceUUIDs: [String], context: RequestContext) async {
        await send("sync_instance_info", ["instance_uuids": .array(instanceUUIDs.map { .string($0) })], context)
    }

    private func send(_ method: String, _ arguments: [String: JSONValue], _ context: RequestContext) async {
        guard isEnabled else { return }
        var arguments = arguments
        arguments["host_name"] = .string(host)
        do {
            try await client.cast(Self.target, method, arguments, context: context.elevated)
        } catch {
            logger.warning("schedulers not told", error: error, metadata: ["method": "\(method)"])
        }
    }
}
