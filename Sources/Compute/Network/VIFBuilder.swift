// From Neutron's records to one virtual interface in Nova's form (contract §7.5 and §7.6), key for key: the API builds a
// server's addresses from it, and other services read it. Records are a peer's: what is missing is null, never a trap.
import JSON
import Neutron
import NovaObjects
import OpenStackHTTP

struct VIFBuilder: Sendable {
    let neutron: any NeutronAPI
    /// `[neutron] ovs_bridge`.
    let ovsBridge: String
    /// `[DEFAULT] flat_injected`.
    let isInjected: Bool

    /// Interface and bridge names of Linux have 14 characters in Nova.
    static let nameLength = 14
    private static let tunnelTypes: Set<String> = ["vxlan", "gre", "geneve"]

    /// - Parameter networks: records that may be the port's network.
    /// - Parameter preexisting: ports that were there before the instance, to be kept when it goes.
    func build(port: JSONValue, networks: [JSONValue], preexisting: Set<String>) async throws -> VIF {
        let id = port["id"]?.stringValue ?? ""
        let ips = try await fixedIPs(of: port)
        let subnets = try await subnets(of: port, ips: ips)
        let vifType = port["binding:vif_type"]?.stringValue
        let bridge = bridge(of: port, type: vifType)
        let network = try await network(of: port, networks: networks, subnets: subnets, bridge: bridge.name, type: vifType)
        let isActive = port["admin_state_up"]?.boolValue == false || port["status"]?.stringValue == "ACTIVE"
        return VIF([
            "id": .string(id), "address": port["mac_address"] ?? .null, "network": network,
            "type": .nullable(vifType), "details": .object(port["binding:vif_details"]?.objectValue ?? [:]),
            "devname": .string(String(("tap" + id).prefix(Self.nameLength))),
            "ovs_interfaceid": bridge.isOVS ? .string(id) : .null, "qbh_params": .null, "qbg_params": .null,
            "active": .bool(isActive), "vnic_type": port["binding:vnic_type"] ?? "normal",
            "profile": .object(port["binding:profile"]?.objectValue ?? [:]),
            "preserve_on_delete": .bool(preexisting.contains(id)), "delegate_create": true, "meta": [:],
        ])
    }

    // MARK: Addresses

    private struct FixedIP {
        let address: IPAddress?
        let json: JSONValue
    }

    private func fixedIPs(of port: JSONValue) async throws -> [FixedIP] {
        let portID = port["id"]?.stringValue ?? ""
        var fixed: [FixedIP] = []
        for entry in port["fixed_ips"]?.arrayValue ?? [] {
            guard let address = entry["ip_address"]?.stringValue else { continue }
            let records = try await neutron.floatingIPs(
                query: [("fixed_ip_address", address), ("port_id", portID)], as: .service)
            var floating: [JSONValue] = []
            for record in records {
                let ip = Self.ip(record["floating_ip_address"]?.stringValue, type: "floating")
                if !floating.contains(ip) { floating.append(ip) }
            }
            let plain = Self.ip(address, type: "fixed")
            var json = plain.objectValue ?? [:]
            json["floating_ips"] = .array(floating)
            fixed.append(FixedIP(address: IPAddress(address), json: .object(json)))
        }
        return fixed
    }

    private func subnets(of port: JSONValue, ips: [FixedIP]) async throws -> [JSONValue] {
        var ids: [String] = []
        for entry in port["fixed_ips"]?.arrayValue ?? [] {
            if let id = entry["subnet_id"]?.stringValue, !ids.contains(id) { ids.append(id) }
        }
        // Without an id Neutron would answer with every subnet there is.
        guard !ids.isEmpty else { return [] }
        var subnets: [JSONValue] = []
        for record in try await neutron.subnets(query: ids.map { ("id", $0) }, as: .service) {
            subnets.append(try await subnet(record, ips: ips))
        }
        return subnets
    }

    private func subnet(_ record: JSONValue, ips: [FixedIP]) async throws -> JSONValue {
        let gateway = record["gateway_ip"]?.stringValue
        var meta: [String: JSONValue] = [:]
        if let mode = record["ipv6_address_mode"]?.stringValue, !mode.isEmpty { meta["ipv6_address_mode"] = .string(mode) }
        let agents = try await neutron.ports(
            query: [
                ("network_id", record["network_id"]?.stringValue ?? ""), ("device_owner", "network:dhcp"),
            ], as: .service)
        for agent in agents {
            for pair in agent["fixed_ips"]?.arrayValue ?? []
            where pair["subnet_id"] != nil && pair["subnet_id"] == record["id"] {
                meta["dhcp_server"] = pair["ip_address"] ?? .null
                break
            }
        }
        // No agent has a port yet, or DHCP comes from outside: the gateway stands in, so that the guest is told to use DHCP.
        if record["enable_dhcp"]?.boolValue == true, meta["dhcp_server"] == nil { meta["dhcp_server"] = .nullable(gateway) }

        let cidr = record["cidr"]?.stringValue
        let range = cidr.flatMap(IPNetwork.init)
        var dns: [JSONValue] = []
        for server in record["dns_nameservers"]?.arrayValue ?? [] {
            let ip = Self.ip(server.stringValue, type: "dns")
            if !dns.contains(ip) { dns.append(ip) }
        }
        var routes: [JSONValue] = []
        for route in record["host_routes"]?.arrayValue ?? [] {
            let entry: JSONValue = [
                "cidr": route["destination"] ?? .null, "gateway": Self.ip(route["nexthop"]?.stringValue, type: "gateway"),
                "interface": .null, "meta": [:],
            ]
            if !routes.contains(entry) { routes.append(entry) }
        }
        let inside = ips.filter { ip in ip.address.map { range?.contains($0) ?? false } ?? false }
        return [
            "cidr": .nullable(cidr), "dns": .array(dns), "gateway": Self.ip(gateway, type: "gateway"),
            "ips": .array(inside.map(\.json)), "routes": .array(routes), "version": .nullable(range?.version),
            "meta": .object(meta),
        ]
    }

    private static func ip(_ address: String?, type: String) -> JSONValue {
        [
            "address": .nullable(address), "type": .string(type),
            "version": .nullable(address.flatMap(IPAddress.init)?.version), "meta": [:],
        ]
    }

    // MARK: Networks

    private struct Bridge {
        var name: String?
        var isOVS = false
    }

    private func bridge(of port: JSONValue, type: String?) -> Bridge {
        let details = port["binding:vif_details"]?.objectValue ?? [:]
        let named = details["bridge_name"]?.stringValue
        let networkID = port["network_id"]?.stringValue ?? ""
        var bridge = Bridge()
        switch type {
        case "ovs", "agilio_ovs":
            bridge = Bridge(name: named ?? ovsBridge, isOVS: true)
        case "bridge":
            bridge.name = named ?? "brq" + networkID
        case "vhostuser" where details["vhostuser_ovs_plug"]?.boolValue == true:
            bridge = Bridge(name: named ?? ovsBridge, isOVS: true)
        case "vhostuser" where details["vhostuser_fp_plug"]?.boolValue == true:
            bridge.name = named ?? "brq" + networkID
        case "dvs":
            // The name of a port group, not of a Linux interface: not cut.
            return Bridge(name: networkID)
        default:
            break
        }
        bridge.name = bridge.name.map { String($0.prefix(Self.nameLength)) }
        return bridge
    }

    private func network(
        of port: JSONValue, networks: [JSONValue], subnets: [JSONValue], bridge: String?, type: String?
    ) async throws -> JSONValue {
        let id = port["network_id"]?.stringValue ?? ""
        let record = networks.first { $0["id"]?.stringValue == id }
        let location = try await location(ofNetwork: id)
        var meta: [String: JSONValue] = [
            "injected": .bool(isInjected), "tenant_id": (record ?? port)["tenant_id"] ?? .null,
            "mtu": record?["mtu"] ?? .null, "physical_network": .nullable(location.physicalNetwork),
            "tunneled": .bool(location.isTunneled),
        ]
        // Set beside the other keys in Nova, but stored here: whatever its model of a network does not know is meta.
        if type == "bridge" { meta["should_create_bridge"] = true }
        return [
            "id": .string(id), "bridge": .nullable(bridge), "label": record?["name"] ?? .null, "subnets": .array(subnets),
            "meta": .object(meta),
        ]
    }

    private func location(ofNetwork id: String) async throws -> (physicalNetwork: String?, isTunneled: Bool) {
        if try await neutron.extensions(as: .service).contains("multi-provider") {
            let segments = try await neutron.network(id, fields: ["segments"], as: .service)["segments"]?.arrayValue ?? []
            for segment in segments {
                if let name = segment["provider:physical_network"]?.stringValue, !name.isEmpty { return (name, false) }
            }
            if !segments.isEmpty {
                throw NovaException(
                    "NovaException", "None of the segments of network \(id) provides a physical_network")
            }
        }
        let fields = ["provider:physical_network", "provider:network_type"]
        let network = try await neutron.network(id, fields: fields, as: .service)
        return (
            network["provider:physical_network"]?.stringValue,
            Self.tunnelTypes.contains(network["provider:network_type"]?.stringValue ?? "")
        )
    }
}
