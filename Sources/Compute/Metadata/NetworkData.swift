// network_data.json: links, networks and services of a guest, from its network information (nova.virt.netutils). Of each
// interface the first IPv4 and the first IPv6 subnet count, as in Nova. What cannot be read is left out.
import JSON
import NovaObjects

enum NetworkData {
    private static let knownTypes: Set<String> = ["bridge", "dvs", "hw_veb", "hyperv", "ovs", "tap", "vhostuser", "vif"]

    /// Null where the guest has no interface at all.
    static func make(_ networkInfo: NetworkInfo) -> JSONValue {
        guard !networkInfo.isEmpty else { return .null }
        var links: [JSONValue] = []
        var networks: [JSONValue] = []
        var services: [JSONValue] = []
        var number = -1
        for vif in networkInfo where !vif.subnets.isEmpty {
            number += 1
            let first = [4, 6].compactMap { version in vif.subnets.first { $0["version"]?.intValue == version } }
            guard !first.isEmpty else { continue }
            let name = vif.json["devname"]?.stringValue ?? ""
            let link = name.isEmpty ? "interface\(number)" : name
            links.append([
                "id": .string(link), "vif_id": .string(vif.id),
                "type": .string(knownTypes.contains(vif.type) ? vif.type : "phy"), "mtu": mtu(of: vif),
                "ethernet_mac_address": vif.json["address"] ?? .null,
            ])
            for subnet in first {
                guard let network = network(subnet, of: vif, link: link, id: "network\(networks.count)") else { continue }
                networks.append(network)
                for service in dns(subnet) where !services.contains(service) { services.append(service) }
            }
        }
        return ["links": .array(links), "networks": .array(networks), "services": .array(services)]
    }

    /// DHCP tells the guest its MTU.
    private static func mtu(of vif: VIF) -> JSONValue {
        let isTold = vif.subnets.contains { $0["meta"]?["dhcp_server"]?.stringValue?.isEmpty == false }
        return isTold ? .null : vif.json["network"]?["meta"]?["mtu"] ?? .null
    }

    private static func network(_ subnet: JSONValue, of vif: VIF, link: String, id: String) -> JSONValue? {
        guard let ip = subnet["ips"]?.arrayValue?.first, let version = subnet["version"]?.intValue else { return nil }
        var network: [String: JSONValue] = [
            "id": .string(id), "link": .string(link), "network_id": .string(vif.networkID),
        ]
        let mode = subnet["meta"]?["ipv6_address_mode"]?.stringValue
        if mode == nil, let server = subnet["meta"]?["dhcp_server"], !server.isNull {
            network["type"] = .string("ipv\(version)_dhcp")
            return .object(network)
        }
        network["type"] = .string("ipv\(version)" + (mode.map { "_\($0)" } ?? ""))
        network["ip_address"] = ip["address"] ?? .null
        network["netmask"] = .nullable((subnet["cidr"]?.stringValue).flatMap(IPNetwork.init)?.netmask.text)
        var routes: [JSONValue] = []
        if let gateway = subnet["gateway"]?["address"]?.stringValue, !gateway.isEmpty {
            let any: JSONValue = version == 4 ? "0.0.0.0" : "::"
            routes.append(["network": any, "netmask": any, "gateway": .string(gateway)])
        }
        for route in subnet["routes"]?.arrayValue ?? [] {
            guard let range = (route["cidr"]?.stringValue).flatMap(IPNetwork.init) else { continue }
            routes.append([
                "network": .string(range.network.text), "netmask": .string(range.netmask.text),
                "gateway": route["gateway"]?["address"] ?? .null,
            ])
        }
        network["routes"] = .array(routes)
        network["services"] = .array(dns(subnet))
        return .object(network)
    }

    private static func dns(_ subnet: JSONValue) -> [JSONValue] {
        (subnet["dns"]?.arrayValue ?? []).map { ["type": "dns", "address": $0["address"] ?? .null] }
    }
}
