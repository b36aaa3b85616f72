// Ports of an instance that comes to this host from elsewhere, or from nowhere: unshelve (RPC reference §5.10).
import JSON
import Neutron
package import NovaObjects
import OpenStackHTTP
package import OsloMessaging

extension NeutronNetwork {
    /// Those that are bound here already stay as they are.
    package func bind(_ instance: Instance, context: RequestContext) async throws {
        try await alone(instance, context) {
            for port in try await neutron.ports(query: [("device_id", instance.uuid)], as: .service) {
                guard let id = port["id"]?.stringValue, port["binding:host_id"]?.stringValue != options.host
                    || port["binding:vif_type"]?.stringValue == "binding_failed"
                else { continue }
                let body: JSONValue = [
                    "binding:host_id": .string(options.host),
                    "device_owner": .string("compute:\(instance.availabilityZone ?? "nova")"),
                ]
                try InterfaceRequestCheck.requireBound(try await neutron.updatePort(id, body, as: .service))
            }
        }
    }
}
