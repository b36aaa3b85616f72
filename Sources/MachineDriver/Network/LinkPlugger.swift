// A guest's end of a port on this host: its tap, and the bridge or the switch the tap is in (contract §7.3). Blocking: runs on
// threads for such work.
import CServiceHost
import ComputeDriver
import Glibc
import MachineConfiguration

struct LinkPlugger: Sendable {
    let ovsPath: String

    /// Makes the tap, puts it where the port belongs and sets it up. Returns one descriptor a queue; the tap is gone when the
    /// last one is closed.
    func plug(_ interface: InterfaceRequest, instanceUUID: String, queueCount: Int) throws -> [Descriptor] {
        let plan = try PlugPlan(interface)
        do {
            return try make(plan, interface, instanceUUID: instanceUUID, queueCount: queueCount)
        } catch {
            try? unplug(interface)
            throw DriverError(
                novaClass: "VirtualInterfacePlugException",
                tenantMessage: "Could not connect port \(interface.portID) on the compute host.",
                operatorMessage: "could not plug port \(interface.portID) as \(interface.deviceName): \(error)",
                fault: .host)
        }
    }

    private func make(
        _ plan: PlugPlan, _ interface: InterfaceRequest, instanceUUID: String, queueCount: Int
    ) throws -> [Descriptor] {
        let name = plan.deviceName
        if case .bridge(let bridge) = plan.attachment { try ensureBridge(bridge, mtu: interface.mtu) }
        let queues = try makeTap(name, queueCount: queueCount)
        if let mtu = interface.mtu {
            try check(unsafe apus_host_link_set_mtu(name, CInt(mtu)), "set MTU \(mtu) of", name)
        }
        // As libvirt does: a bridge takes the lowest address of its ports, and this one is never the lowest.
        try check(unsafe apus_host_link_set_address(name, [0xFE] + plan.mac.bytes.dropFirst()), "set address of", name)
        switchOffIPv6(name)
        switch plan.attachment {
        case .bridge(let bridge):
            if unsafe apus_host_bridge_add(bridge, name) != 0 && errno != EBUSY {
                throw HostFailure("add \(name) to bridge", bridge)
            }
        case .switch(let bridge): try OpenVSwitch(path: ovsPath).add(interface, to: bridge, instanceUUID: instanceUUID)
        case .none: break
        }
        try check(unsafe apus_host_link_set_up(name), "set up", name)
        return queues
    }

    private func makeTap(_ name: String, queueCount: Int) throws(HostFailure) -> [Descriptor] {
        var first = unsafe apus_host_tap_create(name, queueCount > 1 ? 1 : 0)
        if first < 0 && errno == EEXIST {
            // Left over: its machine is known to be gone.
            try check(unsafe apus_host_link_delete(name), "remove old", name)
            first = unsafe apus_host_tap_create(name, queueCount > 1 ? 1 : 0)
        }
        guard first >= 0 else {
            throw HostFailure("create tap", name, remedy: "CAP_NET_ADMIN and /dev/net/tun are needed")
        }
        var queues = [Descriptor(owning: first)]
        while queues.count < queueCount {
            let next = unsafe apus_host_tap_queue(name)
            guard next >= 0 else { throw HostFailure("add a queue to tap", name) }
            queues.append(Descriptor(owning: next))
        }
        return queues
    }

    /// As os-vif: no spanning tree, no forward delay, the network's MTU, no addresses of the host's own making.
    private func ensureBridge(_ name: String, mtu: Int?) throws(HostFailure) {
        guard unsafe apus_host_link_exists(name) == 0 else { return }
        if unsafe apus_host_bridge_create(name) != 0 {
            // The network agent may have been quicker.
            guard errno == EEXIST else { throw HostFailure("create bridge", name) }
            return
        }
        switchOffIPv6(name)
        if let mtu { try check(unsafe apus_host_link_set_mtu(name, CInt(mtu)), "set MTU \(mtu) of", name) }
        try check(unsafe apus_host_link_set_up(name), "set up", name)
    }

    /// A host without IPv6 has no such file: no error.
    private func switchOffIPv6(_ name: String) {
        if let file = try? Descriptor(opening: "/proc/sys/net/ipv6/conf/\(name)/disable_ipv6", O_WRONLY) {
            try? Files.append([UInt8(ascii: "1")], to: file, named: name)
        }
    }

    private func check(_ result: CInt, _ operation: String, _ subject: String) throws(HostFailure) {
        guard result == 0 else { throw HostFailure(operation, subject) }
    }

    /// Removes the tap and its place in the switch. None is no error.
    func unplug(_ interface: InterfaceRequest) throws {
        let plan: PlugPlan
        do { plan = try PlugPlan(interface) } catch { return }  // never plugged
        if case .switch(let bridge) = plan.attachment {
            try OpenVSwitch(path: ovsPath).remove(plan.deviceName, from: bridge)
        }
        guard unsafe apus_host_link_exists(plan.deviceName) == 1 else { return }
        if unsafe apus_host_link_delete(plan.deviceName) != 0 && errno != ENODEV {
            throw HostFailure("remove tap", plan.deviceName)
        }
    }
}
