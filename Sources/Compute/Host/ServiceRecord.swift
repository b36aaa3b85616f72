// This process's row in `openstack compute service list`: made or taken over at the start, counted up by the heartbeat.
// The database sets last_seen_up when report_count changes, and the service is up for `service_down_time` after that
// (contract §4.3).
package import Logging
import NovaObjects
package import OsloMessaging

package actor ServiceRecord {
    static let binary = "nova-compute"

    private let conductor: Conductor
    private let host: String
    private let health: HostHealth
    private let logger: Logger
    private var service: Service?

    package init(conductor: Conductor, host: String, health: HostHealth, logger: Logger) {
        self.conductor = conductor
        self.host = host
        self.health = health
        self.logger = logger
    }

    /// Finds or creates the record and gives it this release's version (contract §5.1 step 7).
    package func join(context: RequestContext) async throws {
        var record = try await found(context)
        if record.version != conductor.profile.serviceVersion {
            record.version = conductor.profile.serviceVersion
            try await conductor.call(&record, "save", context: context)
        }
        service = record
    }

    private func found(_ context: RequestContext) async throws -> Service {
        if let record = try await conductor.service(host: host, binary: Self.binary, context: context) { return record }
        var record = Service(host: host, binary: Self.binary, topic: "compute", profile: conductor.profile)
        do {
            try await conductor.call(&record, "create", context: context)
            logger.info("service record created", metadata: ["host": "\(host)"])
            return record
        } catch let failure as RemoteFailure
            where failure.className == "ServiceTopicExists" || failure.className == "ServiceBinaryExists"
        {
            // Another start of this host made it in the same moment.
            guard let record = try await conductor.service(host: host, binary: Self.binary, context: context) else {
                throw failure
            }
            return record
        }
    }

    /// One heartbeat. Never an error: a conductor that does not answer makes this service look down, which is the
    /// truth.
    package func beat(context: RequestContext) async {
        guard var record = service else { return }
        record.reportCount &+= 1
        do {
            try await conductor.call(&record, "save", context: context)
            service = record
            health.conductorAnswered()
        } catch is CancellationError {
            return
        } catch let failure as RemoteFailure where failure.className == "ServiceNotFound" {
            // `openstack compute service delete` of a running service; the host appears again, as after a restart.
            logger.warning("the service record was deleted, registering anew", metadata: ["host": "\(host)"])
            service = nil
            do { try await join(context: context) } catch {
                service = record
                logger.error("not registered", error: error, metadata: ["host": "\(host)"])
            }
        } catch {
            // The count that was not saved is counted again.
            logger.error("heartbeat not recorded", error: error, metadata: ["host": "\(host)"])
        }
    }
}
