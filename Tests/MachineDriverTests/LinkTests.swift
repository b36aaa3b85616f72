import CServiceHost
import ComputeDriver
import Foundation
import Glibc
import JSON
import Testing

@testable import MachineDriver

private func port(
    _ type: String, bridge: String? = nil, device: String = "tap0", mtu: Int? = nil, mac: String = "fa:16:3e:aa:bb:cc"
) -> InterfaceRequest {
    InterfaceRequest(
        portID: "3fa85f64-5717-4562-b3fc-2c963f66afa6", macAddress: mac, type: type, bridge: bridge, deviceName: device,
        mtu: mtu,
        details: [:])
}

struct PlugPlanTests {
    @Test func typesDecideWhatIsMade() throws {
        #expect(try PlugPlan(port("bridge", bridge: "brq1")).attachment == .bridge("brq1"))
        #expect(try PlugPlan(port("ovs", bridge: "br-int")).attachment == .switch("br-int"))
        #expect(try PlugPlan(port("tap")).attachment == .none)
    }

    @Test func whatCannotBePluggedIsRefusedInWords() throws {
        var hybrid = port("ovs", bridge: "br-int")
        hybrid.details["ovs_hybrid_plug"] = true
        for (interface, words) in [
            (port("binding_failed"), "could not bind"), (port("unbound"), "could not bind"),
            (port("vhostuser"), "vhostuser"), (hybrid, "hybrid"),
            (port("bridge", bridge: "../x"), "bridge"), (port("bridge"), "bridge"),
            (port("tap", device: "-x"), "network device"),
            (port("tap", device: "sixteen-bytes-xx"), "network device"), (port("tap", device: "a/b"), "network device"),
            (port("tap", mac: "ff:ff:ff:ff:ff:ff"), "MAC"), (port("tap", mtu: 10), "MTU"),
        ] {
            let error = try #require(throws: DriverError.self) { try PlugPlan(interface) }
            #expect(error.tenantMessage.contains(words), "\(error.tenantMessage)")
        }
    }

    @Test func switchIsToldWhosePortItIs() {
        let words = OpenVSwitch.addition(port("ovs", bridge: "br-int", mtu: 1450), to: "br-int", instanceUUID: "u")
        #expect(
            words.joined(separator: " ")
                == "--if-exists del-port tap0 -- add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=3fa85f64-5717-4562-b3fc-2c963f66afa6 external_ids:iface-status=active external_ids:attached-mac=\"fa:16:3e:aa:bb:cc\" external_ids:vm-uuid=u mtu_request=1450"
        )
    }

    @Test func helperThatFailsOrHangsIsAnError() throws {
        let ran = try MonitorProcess.run(
            "/bin/sh", arguments: ["sh", "-c", "echo out; echo err >&2; exit 3"], timeoutMilliseconds: 10000)
        #expect(ran.status == 3 && ran.output == "out\nerr\n")
        #expect(throws: HostFailure.self) {
            try MonitorProcess.run("/bin/sleep", arguments: ["sleep", "60"], timeoutMilliseconds: 50)
        }
        #expect(throws: HostFailure.self) {
            try MonitorProcess.run("/nonexistent", arguments: ["x"], timeoutMilliseconds: 50)
        }
    }
}

@Suite(.enabled(if: isRoot && access("/dev/net/tun", R_OK | W_OK) == 0, "needs root and /dev/net/tun"), .serialized)
struct LinkTests {
    private let plugger = LinkPlugger(ovsPath: "/nonexistent")
    private let tap = "apt\(getpid())", bridge = "apb\(getpid())"

    private func read(_ path: String) -> String? {
        (try? String(contentsOfFile: "/sys/class/net/\(path)", encoding: .utf8))?.trimmingCharacters(
            in: .whitespacesAndNewlines)
    }

    @Test func tapIsInItsBridgeUntilItsDescriptorsAreClosed() async throws {
        defer { _ = apus_host_link_delete(bridge) }
        let interface = port("bridge", bridge: bridge, device: tap, mtu: 1450)
        var queues = try plugger.plug(interface, instanceUUID: "u", queueCount: 1)
        #expect(queues.count == 1)
        #expect(read("\(tap)/mtu") == "1450" && read("\(bridge)/mtu") == "1450")
        #expect(read("\(tap)/address") == "fe:16:3e:aa:bb:cc")
        #expect(read("\(bridge)/brif/\(tap)/port_id") != nil, "the tap is not in the bridge")
        #expect(read("\(bridge)/bridge/stp_state") == "0" && read("\(bridge)/bridge/forward_delay") == "0")
        let flags = try #require(read("\(tap)/flags").flatMap { Int($0.dropFirst(2), radix: 16) })
        #expect(flags & 1 == 1, "the tap is not up")
        // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
        let tun = try #require(read("\(tap)/tun_flags").flatMap { Int($0.dropFirst(2), radix: 16) })
        #expect(tun & 0x5002 == 0x5002)
        queues = []
        // A process that another test starts at this moment holds the descriptors until its exec.
        _ = try await eventually("the tap is gone") { apus_host_link_exists(tap) == 0 ? true : nil }
        #expect(apus_host_link_exists(bridge) == 1, "the bridge belongs to the network, not to the port")
        try plugger.unplug(interface)
    }

    @Test func multiQueueTapHasItsQueues() throws {
        let queues = try plugger.plug(port("tap", device: tap), instanceUUID: "u", queueCount: 3)
        #expect(queues.count == 3)
        try plugger.unplug(port("tap", device: tap))
        #expect(apus_host_link_exists(tap) == 0)
        try plugger.unplug(port("tap", device: tap))
    }

    @Test func leftOverTapIsReplaced() throws {
        let old = try plugger.plug(port("tap", device: tap), instanceUUID: "u", queueCount: 1)
        let new = try plugger.plug(port("tap", device: tap), instanceUUID: "u", queueCount: 1)
        #expect(apus_host_link_exists(tap) == 1)
        withExtendedLifetime((old, new)) {}
        try plugger.unplug(port("tap", device: tap))
    }

    @Test func failedPlugLeavesNoTap() throws {
        let error = try #require(throws: DriverError.self) {
            try plugger.plug(port("bridge", bridge: "lo", device: tap), instanceUUID: "u", queueCount: 1)
        }
        #expect(error.operatorMessage.contains("lo") && error.novaClass == "VirtualInterfacePlugException")
        #expect(apus_host_link_exists(tap) == 0)
        #expect(throws: DriverError.self) {
            try plugger.plug(port("ovs", bridge: "br-int", device: tap), instanceUUID: "u", queueCount: 1)
        }
        #expect(apus_host_link_exists(tap) == 0)
    }

    @Test func machineKeepsItsTapAcrossItsLife() async throws {
        defer { _ = apus_host_link_delete(bridge) }
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        let interface = port("bridge", bridge: bridge, device: tap, mtu: 1500)
        try await driver.spawn(fixture.request(interfaces: [interface], startsPaused: true))
        #expect(apus_host_link_exists(tap) == 1)
        let report = try await fixture.report(driver)
        #expect(report["configuration"]?["networks"]?.arrayValue?.first?["mac"] == "fa:16:3e:aa:bb:cc")
        #expect(report["unnamed"] == [] && report["missing"] == [])
        try await driver.powerOff(instance: fixture.instance(), timeout: .zero, retryInterval: .zero)
        #expect(apus_host_link_exists(tap) == 0)
        try await driver.powerOn(instance: fixture.instance(), interfaces: [interface])
        #expect(apus_host_link_exists(tap) == 1)
        #expect(try await driver.statistics(of: fixture.uuid).interfaces.map(\.name) == [tap])
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        #expect(apus_host_link_exists(tap) == 0)
        fixture.expectNothingLeft()
    }
}
