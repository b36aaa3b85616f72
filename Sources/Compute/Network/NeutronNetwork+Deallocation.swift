// Giving up an instance's ports (contract §7.7). Ports that a user made before the instance are unbound and stay; the others
// go. A port that is gone already is no error, and one that cannot be deleted does not keep the next one.
import JSON
import Logging
import Neutron
package import NovaObjects
import OpenStackHTTP
package import OsloMessaging

extension NeutronNetwork {
    package func deallocate(
        for instance: Instance, requested: NetworkRequestList?, context: RequestContext
    ) async throws {
        try await alone(instance, context) {
            let user = try Self.authorization(of: context)
            let ports = try await neutron.ports(query: [("device_id", instance.uuid)], as: user)
                .compactMap { $0["id"]?.stringValue }
            var kept = try requested?.elements().compactMap(\.portID) ?? []
            // The cache as it is stored too: whoever holds an instance from before a port came must not delete that port.
            for vif in cached(instance) + (try await storedInfo(of: instance, context: context))
            where vif.isPreservedOnDelete && !kept.contains(vif.id) { kept.append(vif.id) }

            await unbind(kept, user: user)
            let failure = await delete(ports.filter { !kept.contains($0) }, user: user)
            if let failure { throw failure }

            _ = try await conductor.callClass(
                "VirtualInterface", "delete_by_instance_uuid", [.string(instance.uuid)], context: context)
            try await save([], of: instance, context: context)
        }
    }

    /// Deletes what it can; the first failure is the answer.
    func delete(_ ports: [String], user: RequestAuthorization) async -> (any Error)? {
        var first: (any Error)?
        for port in ports {
            do {
                try await neutron.deletePort(port, as: user)
            } catch {
                logger.warning("port could not be deleted", metadata: ["port": "\(port)", "reason": "\(error)"])
                first = first ?? error
            }
        }
        return first
    }

    /// Takes the instance and the host out of ports. Failures are logged: the ports' owner can repair them, and the instance
    /// has to go.
    func unbind(_ ports: [String], user: RequestAuthorization) async {
        var networks: [String: JSONValue] = [:]
        for id in ports {
            var profile: [String: JSONValue] = [:]
            var network: JSONValue = [:]
            do {
                let port = try await neutron.port(id, fields: ["binding:profile", "network_id"], as: user)
                profile = port["binding:profile"]?.objectValue ?? [:]
                let networkID = port["network_id"]?.stringValue ?? ""
                if let known = networks[networkID] {
                    network = known
                } else {
                    network = try await neutron.network(networkID, fields: ["dns_domain"], as: user)
                    networks[networkID] = network
                }
            } catch let fault as ServiceFault where fault.code == "PortNotFound" {
                continue
            } catch {
                logger.warning("port could not be read", metadata: ["port": "\(id)", "reason": "\(error)"])
            }
            await unbind(id, profile: profile, network: network, user: user)
        }
    }

    private func unbind(
        _ id: String, profile: [String: JSONValue], network: JSONValue, user: RequestAuthorization
    ) async {
        do {
            let hasNames = try await neutron.extensions(as: .service).contains("dns-integration")
            let hasDomain = network["dns_domain"]?.stringValue.map { !$0.isEmpty } ?? false
            var body: [String: JSONValue] = [
                "device_id": "", "device_owner": "", "binding:host_id": .null,
                "binding:profile": .object(profile.filter { !Self.deviceKeys.contains($0.key) }),
            ]
            if hasNames, !hasDomain { body["dns_name"] = "" }
            do {
                _ = try await neutron.updatePort(id, .object(body), as: .service)
            } catch let fault as ServiceFault where fault.code == "PortNotFound" {
                return
            }
            // A name in the user's own zone can be taken back by the user alone.
            if hasNames, hasDomain { _ = try await neutron.updatePort(id, ["dns_name": ""], as: user) }
        } catch {
            logger.error("port could not be unbound", metadata: ["port": "\(id)", "reason": "\(error)"])
        }
    }

    /// What a binding profile says about the device of the host it was bound on.
    private static let deviceKeys: Set<String> = [
        "pci_vendor_info", "pci_slot", "allocation", "arq_uuid", "physical_network", "card_serial_number", "vf_num",
        "pf_mac_address", "device_mac_address",
    ]
}
