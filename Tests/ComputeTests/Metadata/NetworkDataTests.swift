// network_data.json as nova.virt.netutils.get_network_metadata makes it.
import JSON
import Testing

@testable import Compute

struct NetworkDataTests {
    private static func vif(_ subnets: [JSONValue], type: JSONValue = "ovs", mtu: JSONValue = 1450) -> VIF {
        VIF([
            "id": "p1", "address": "fa:16:3e:00:00:01", "type": type, "devname": "tapp1",
            "network": ["id": "n1", "label": "net", "subnets": .array(subnets), "meta": ["mtu": mtu]],
        ])
    }

    private static func subnet(_ version: Int, _ cidr: String, _ address: String, _ more: [String: JSONValue] = [:]) -> JSONValue {
        let base: [String: JSONValue] = [
            "version": .integer(Int64(version)), "cidr": .string(cidr), "ips": [["address": .string(address)]], "dns": [],
            "routes": [], "meta": [:], "gateway": ["address": .null],
        ]
        return .object(base.merging(more) { $1 })
    }

    @Test func aNetworkWithDHCPSaysSoAndNoMore() throws {
        let data = NetworkData.make(try RecordedExchange("create").after.map { VIF($0) })
        #expect(
            data == [
                "links": [
                    [
                        "id": "tapd04696fa-a6", "vif_id": "d04696fa-a6d5-483f-a97a-abd3d324192f", "type": "bridge",
                        "mtu": .null, "ethernet_mac_address": "fa:16:3e:4d:b0:9a",
                    ]
                ],
                "networks": [
                    [
                        "id": "network0", "type": "ipv4_dhcp", "link": "tapd04696fa-a6",
                        "network_id": "0e8fba90-b406-4db7-b76e-6393eb8da17b",
                    ]
                ],
                "services": [["type": "dns", "address": "10.99.0.1"]],
            ])
    }

    @Test func aStaticNetworkIsToldInFull() {
        let subnet = Self.subnet(
            4, "10.0.0.0/24", "10.0.0.5",
            [
                "gateway": ["address": "10.0.0.1"], "dns": [["address": "10.0.0.2"]],
                "routes": [["cidr": "10.9.0.0/16", "gateway": ["address": "10.0.0.9"]]],
            ])
        let data = NetworkData.make([Self.vif([subnet])])
        #expect(data["links"]?.arrayValue?.first?["mtu"] == 1450)
        #expect(
            data["networks"] == [
                [
                    "id": "network0", "type": "ipv4", "link": "tapp1", "ip_address": "10.0.0.5", "netmask": "255.255.255.0",
                    "network_id": "n1", "services": [["type": "dns", "address": "10.0.0.2"]],
                    "routes": [
                        ["network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"],
                        ["network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.9"],
                    ],
                ]
            ])
    }

    @Test func ipv6HasItsAddressMode() {
        let slaac = Self.subnet(
            6, "2001:db8::/64", "2001:db8::5",
            ["gateway": ["address": "2001:db8::1"], "meta": ["ipv6_address_mode": "slaac", "dhcp_server": "2001:db8::1"]])
        let data = NetworkData.make([Self.vif([Self.subnet(4, "10.0.0.0/24", "10.0.0.5"), slaac], type: "macvtap")])
        #expect(data["links"]?.arrayValue?.first?["type"] == "phy")
        #expect(data["networks"]?.arrayValue?.count == 2)
        #expect(
            data["networks"]?.arrayValue?.last == [
                "id": "network1", "type": "ipv6_slaac", "link": "tapp1", "ip_address": "2001:db8::5",
                "netmask": "ffff:ffff:ffff:ffff::", "network_id": "n1", "services": [],
                "routes": [["network": "::", "netmask": "::", "gateway": "2001:db8::1"]],
            ])
    }

    @Test func whatHasNoSubnetOrNoAddressIsLeftOut() {
        #expect(NetworkData.make([]) == .null)
        #expect(NetworkData.make([Self.vif([])]) == ["links": [], "networks": [], "services": []])
        let empty = NetworkData.make([Self.vif([Self.subnet(4, "10.0.0.0/24", "x", ["ips": []])])])
        #expect(empty["links"]?.arrayValue?.count == 1)
        #expect(empty["networks"] == [])
    }
}
