// The ports of an instance that moves (contract §7.8). On a resize all of this happens on one host: ports are bound where they
// were, and what is left to do is to see that they are, and that no mark of a move stays on them.
import JSON
import Logging
import Neutron
package import NovaObjects
import OpenStackHTTP
package import OsloMessaging

extension NeutronNetwork {
    package func activateBindings(of instance: Instance, on host: String, context: RequestContext) async throws {
        try await alone(instance, context) {
            guard try await neutron.extensions(as: .service).contains("binding-extended") else { return }
            for vif in cached(instance) {
                let binding: JSONValue?
                do { binding = try await neutron.binding(ofPort: vif.id, on: host, as: .service) } catch let fault as ServiceFault {
                    // The ports are bound anyway when the move ends.
                    logger.error("binding of a port could not be read", metadata: ["port": "\(vif.id)", "reason": "\(fault)"])
                    continue
                }
                // Without a binding for the host nobody made any: the ports follow when the move ends.
                guard let binding else { return }
                if binding["status"] == "ACTIVE" { continue }
                try await activateBinding(of: vif.id, on: host)
            }
        }
    }

    private func activateBinding(of port: String, on host: String) async throws {
        do { try await neutron.activateBinding(ofPort: port, on: host, as: .service) } catch let fault as ServiceFault {
            guard fault.status != 409 else {
                return logger.warning("binding of a port was active already", metadata: ["port": "\(port)", "host": "\(host)"])
            }
            throw NovaException(
                "PortBindingActivationFailed", "Failed to activate binding for port \(port) and host \(host).",
                details: "\(fault)", keywords: ["port_id": .string(port), "host": .string(host)], cause: fault)
        }
    }

    package func bindPorts(of instance: Instance, to host: String, context: RequestContext) async throws {
        try await alone(instance, context) {
            let query = [("device_id", instance.uuid), ("tenant_id", instance.projectID ?? "")]
            for port in try await neutron.ports(query: query, as: .service) {
                let isUnbound = ["unbound", "binding_failed"].contains(port["binding:vif_type"]?.stringValue)
                guard let id = port["id"]?.stringValue, isUnbound || port["binding:host_id"]?.stringValue != host else { continue }
                var body: [String: JSONValue] = [
                    "binding:host_id": .string(host),
                    // With the host its zone may have changed.
                    "device_owner": .string("compute:\(instance.availabilityZone ?? "None")"),
                ]
                if let profile = Self.profileWithoutMark(port) { body["binding:profile"] = .object(profile) }
                _ = try await neutron.updatePort(id, .object(body), as: .service)
                logger.info("port bound again", metadata: ["instance": "\(instance.uuid)", "port": "\(id)", "host": "\(host)"])
            }
        }
    }

    package func clearMoveMarks(of instance: Instance, context: RequestContext) async throws {
        try await alone(instance, context) {
            let query = [
                ("device_id", instance.uuid), ("tenant_id", instance.projectID ?? ""), ("binding:host_id", instance.host ?? ""),
            ]
            for port in try await neutron.ports(query: query, as: .service) {
                guard let id = port["id"]?.stringValue, let profile = Self.profileWithoutMark(port) else { continue }
                _ = try await neutron.updatePort(id, ["binding:profile": .object(profile)], as: .service)
            }
        }
    }

    /// The binding profile without the mark of a move; nil where it bears none.
    private static func profileWithoutMark(_ port: JSONValue) -> [String: JSONValue]? {
        guard var profile = port["binding:profile"]?.objectValue, profile.removeValue(forKey: "migrating_to") != nil
        else { return nil }
        return profile
    }
}
