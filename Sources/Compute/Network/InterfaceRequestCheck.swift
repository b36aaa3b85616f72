// What a server asked for in networks and ports, checked against Neutron before anything is made (RPC reference §5.1.1, steps
// 1 to 3). Refusals are Nova's exceptions in Nova's words: tenants read them.
import JSON
import Neutron
import NovaObjects
import OpenStackHTTP

/// One interface to be made: on a network, or with a port that is there already.
struct WantedInterface: Sendable {
    var networkID: String
    var portID: String?
    /// A fixed IP address for a new port.
    var address: String?
    var tag: String?
}

/// Everything allocation needs to know before it writes.
struct InterfacePlan: Sendable {
    var interfaces: [WantedInterface] = []
    /// Records of the ports that were named.
    var ports: [String: JSONValue] = [:]
    /// Records of the networks, by id.
    var networks: [String: JSONValue] = [:]
    var securityGroupIDs: [String] = []
}

struct InterfaceRequestCheck: Sendable {
    let neutron: any NeutronAPI
    let instance: Instance
    let projectID: String
    let user: RequestAuthorization
    /// Whether the caller may use external networks of others.
    let isAdmin: Bool

    /// The plan; without interfaces where the project has no network and asked for none.
    func plan(_ requests: [NetworkRequest], securityGroups: [String]) async throws -> InterfacePlan {
        var plan = InterfacePlan()
        let isAuto = requests.count == 1 && requests[0].isAuto
        if !isAuto {
            for request in requests { try await add(request, to: &plan) }
        }
        let networks = try await networks(for: &plan, requests, isAuto: isAuto)
        guard !networks.isEmpty else { return InterfacePlan() }
        for network in networks {
            if let id = network["id"]?.stringValue { plan.networks[id] = network }
        }
        plan.securityGroupIDs = try await ids(ofSecurityGroups: securityGroups)
        return plan
    }

    private func add(_ request: NetworkRequest, to plan: inout InterfacePlan) async throws {
        var networkID = request.networkID
        if let id = request.portID {
            let port = try await usablePort(id)
            plan.ports[id] = port
            networkID = port["network_id"]?.stringValue
        }
        if request.pciRequestID != nil {
            throw NovaException(
                "PciDeviceNotFound", "PCI device not found for request ID \(request.pciRequestID ?? "").", code: 404,
                details: "this host assigns no PCI devices to guests (caller)")
        }
        guard let networkID, !networkID.isEmpty else { return }
        plan.interfaces.append(
            WantedInterface(
                networkID: networkID, portID: request.portID, address: request.address, tag: request.tag))
    }

    // MARK: Ports

    private func usablePort(_ id: String) async throws -> JSONValue {
        let port: JSONValue
        do {
            // As the service: a user does not see what resources a port asks for.
            port = try await neutron.port(id, as: .service)
        } catch let fault as ServiceFault where fault.code == "PortNotFound" {
            throw NovaException(
                "PortNotFound", "Port id \(id) could not be found.", code: 404, keywords: ["port_id": .string(id)])
        } catch let fault as ServiceFault {
            throw NovaException(
                "NovaException", "Failed to access port \(id): \(fault.body)", details: "\(fault)", cause: fault)
        }
        guard port["tenant_id"]?.stringValue == projectID else {
            throw NovaException("PortNotUsable", "Port \(id) not usable for instance \(instance.uuid).", code: 400)
        }
        if let user = port["device_id"]?.stringValue, !user.isEmpty {
            throw NovaException("PortInUse", "Port \(id) is still in use.", code: 400, keywords: ["port_id": .string(id)])
        }
        if let name = port["dns_name"]?.stringValue, !name.isEmpty, name != instance.hostname {
            throw NovaException(
                "PortNotUsableDNS",
                "Port \(id) not usable for instance \(instance.uuid). Value \(name) assigned to dns_name attribute does not "
                    + "match instance's hostname \(instance.hostname ?? "None")", code: 400)
        }
        try Self.requireBound(port)
        if try await hasResourceRequest(port) {
            throw NovaException(
                "PortNotUsable", "Port \(id) not usable for instance \(instance.uuid).", code: 400,
                details: "port \(id) asks for guaranteed resources, which this host cannot give it (caller)")
        }
        return port
    }

    static func requireBound(_ port: JSONValue) throws(NovaException) {
        guard port["binding:vif_type"]?.stringValue == "binding_failed" else { return }
        let id = port["id"]?.stringValue ?? ""
        throw NovaException(
            "PortBindingFailed", "Binding failed for port \(id), please check neutron logs for more information.", code: 400,
            keywords: ["port_id": .string(id)])
    }

    /// Guaranteed bandwidth or packet rate, which would have to be claimed in Placement.
    func hasResourceRequest(_ port: JSONValue) async throws -> Bool {
        let isGrouped = try await neutron.extensions(as: user).contains("port-resource-request-groups")
        guard let request = port["resource_request"]?.objectValue else { return false }
        return isGrouped ? request["request_groups"]?.arrayValue?.isEmpty == false : !request.isEmpty
    }

    // MARK: Networks

    private func networks(
        for plan: inout InterfacePlan, _ requests: [NetworkRequest], isAuto: Bool
    ) async throws -> [JSONValue] {
        var networks = try await availableNetworks(plan.interfaces.map(\.networkID), isAuto: isAuto)
        if networks.isEmpty {
            if isAuto {
                networks = [try await autoAllocatedNetwork()]
            } else if let request = requests.first(where: { $0.portID == nil && $0.networkID?.isEmpty == false }) {
                throw Self.notFound(network: request.networkID ?? "")
            } else if requests.isEmpty {
                return []
            }
        }
        let isUnspecified = requests.count == 1 && plan.interfaces.isEmpty && !isAuto
        if requests.isEmpty || isUnspecified || isAuto {
            guard let only = networks.first?["id"]?.stringValue else {
                throw NovaException(
                    "InterfaceAttachFailedNoNetwork",
                    "No specific network was requested and none are available for project '\(projectID)'.", code: 400)
            }
            guard networks.count == 1 else {
                throw NovaException(
                    "NetworkAmbiguous", "Multiple possible networks found, use a Network ID to be more specific.", code: 400)
            }
            plan.interfaces.append(WantedInterface(networkID: only, tag: requests.first?.tag))
        }
        for network in networks where !isAdmin {
            guard network["router:external"]?.boolValue == true, network["shared"]?.boolValue != true else { continue }
            throw NovaException(
                "ExternalNetworkAttachForbidden",
                "It is not allowed to create an interface on external network \(network["id"]?.stringValue ?? "")", code: 403)
        }
        return networks
    }

    private func availableNetworks(_ ids: [String], isAuto: Bool) async throws -> [JSONValue] {
        if !ids.isEmpty { return try await neutron.networks(query: ids.map { ("id", $0) }, as: user) }
        var own = [("tenant_id", projectID), ("shared", "False")]
        // A topology that is still being made is not up.
        if isAuto { own.append(("admin_state_up", "True")) }
        return try await neutron.networks(query: own, as: user)
            + (try await neutron.networks(query: [("shared", "True")], as: user))
    }

    private func autoAllocatedNetwork() async throws -> JSONValue {
        let refusal = NovaException(
            "UnableToAutoAllocateNetwork", "Unable to automatically allocate a network for project \(projectID)", code: 400)
        do {
            let id = try await neutron.autoAllocatedTopology(of: projectID, as: user)
            return try await neutron.network(id, fields: [], as: user)
        } catch let fault as ServiceFault where fault.status == 409 || fault.code == "NetworkNotFound" {
            throw refusal
        }
    }

    private static func notFound(network id: String) -> NovaException {
        NovaException(
            "NetworkNotFound", "Network \(id) could not be found.", code: 404, keywords: ["network_id": .string(id)])
    }

    // MARK: Security groups

    /// Ids of groups named by name or id; none for the default group, which Neutron adds by itself.
    private func ids(ofSecurityGroups names: [String]) async throws -> [String] {
        guard !names.isEmpty, names != ["default"] else { return [] }
        let groups = try await neutron.securityGroups(
            query: [("tenant_id", projectID), ("fields", "id"), ("fields", "name")], as: user)
        var ids: [String] = []
        for name in names {
            let byName = groups.filter { $0["name"]?.stringValue == name }
            guard byName.count <= 1 else {
                throw NovaException(
                    "NoUniqueMatch",
                    "Multiple security groups found matching '\(name)'. Use an ID to be more specific.", code: 409)
            }
            // A group named like another's id is meant by its name.
            guard let group = byName.first ?? groups.first(where: { $0["id"]?.stringValue == name }),
                let id = group["id"]?.stringValue
            else {
                throw NovaException("SecurityGroupNotFound", "Security group \(name) not found.", code: 404)
            }
            ids.append(id)
        }
        return ids
    }
}
