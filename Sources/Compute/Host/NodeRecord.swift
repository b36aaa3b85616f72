// The fields of ComputeNode: what the driver reports of the host (contract §12) and what is used of it (§6.3). Fields
// are assigned only where they differ, so that a save sends what changed and a host at rest saves nothing.
import ComputeDriver
import JSON
package import NovaObjects

/// What the configuration adds to the driver's report.
package struct NodeSettings: Sendable {
    package var host: String
    package var address: String
    package var profile: ReleaseProfile
    /// The CPUs offered, nil: all the driver reports.
    package var sharedCPUs: Set<Int>?
    package var ratios: AllocationRatios

    package init(
        host: String, address: String, profile: ReleaseProfile, sharedCPUs: Set<Int>?, ratios: AllocationRatios
    ) {
        self.host = host
        self.address = address
        self.profile = profile
        self.sharedCPUs = sharedCPUs
        self.ratios = ratios
    }
}

/// Over-commitment: what is configured, and what a new node begins with.
package struct AllocationRatios: Sendable, Equatable {
    package var cpu: Double?
    package var memory: Double?
    package var disk: Double?
    package var initialCPU: Double
    package var initialMemory: Double
    package var initialDisk: Double

    package init(
        cpu: Double?, memory: Double?, disk: Double?, initialCPU: Double, initialMemory: Double, initialDisk: Double
    ) {
        self.cpu = cpu
        self.memory = memory
        self.disk = disk
        self.initialCPU = initialCPU
        self.initialMemory = initialMemory
        self.initialDisk = initialDisk
    }
}

extension NodeSettings {
    /// A record to be created: the driver's report and the initial ratios.
    func newNode(uuid: String, _ resources: HostResources, topology: HostTopology, usage: NodeUsage) -> ComputeNode {
        var node = ComputeNode(in: profile)
        node.set("uuid", to: uuid)
        node.set("host", to: host)
        node.set("vcpus_used", to: 0)
        node.set("memory_mb_used", to: usage.memoryMiB)
        node.set("local_gb_used", to: usage.localGiB)
        node.set("stats", to: usage.statistics.fieldValue)
        describe(resources, in: &node)
        describe(topology, usage, in: &node)
        node.set("cpu_allocation_ratio", to: .double(ratios.cpu ?? ratios.initialCPU))
        node.set("ram_allocation_ratio", to: .double(ratios.memory ?? ratios.initialMemory))
        node.set("disk_allocation_ratio", to: .double(ratios.disk ?? ratios.initialDisk))
        return node
    }

    /// The host's cells and what is used of them.
    private func describe(_ topology: HostTopology, _ usage: NodeUsage, in node: inout ComputeNode) {
        node.update("numa_topology", to: .string(topology.primitiveText(shared: sharedCPUs, usage: usage.cells, profile: profile)))
    }

    /// What the host is, but for its cells.
    func describe(_ resources: HostResources, in node: inout ComputeNode) {
        node.update("vcpus", to: .nullable(vcpus(of: resources)))
        node.update("memory_mb", to: .nullable(resources.memoryMiB))
        node.update("local_gb", to: .nullable(resources.diskGiB))
        node.update("disk_available_least", to: .nullable(resources.diskFreeGiB))
        node.update("hypervisor_type", to: .string(resources.hypervisorType))
        node.update("hypervisor_version", to: .nullable(resources.hypervisorVersion))
        node.update("hypervisor_hostname", to: .string(resources.hypervisorHostname))
        node.update("cpu_info", to: .string(resources.cpuInfo.serialize()))
        node.update("host_ip", to: .string(address))
        let specs = resources.supportedInstances.filter { $0.count == 3 }.map {
            HVSpec(architecture: $0[0], hypervisorType: $0[1], mode: $0[2], profile: profile)
        }
        if node.elements("supported_hv_specs", as: HVSpec.self).map(Self.words) != specs.map(Self.words) {
            node.set("supported_hv_specs", to: .array(specs.map(\.primitive)))
        }
        for (field, ratio) in [
            ("cpu_allocation_ratio", ratios.cpu), ("ram_allocation_ratio", ratios.memory),
            ("disk_allocation_ratio", ratios.disk),
        ] {
            if let ratio, node.double(field) != ratio { node.set(field, to: .double(ratio)) }
        }
    }

    /// What is used of it.
    func account(_ usage: NodeUsage, of topology: HostTopology, in node: inout ComputeNode) {
        describe(topology, usage, in: &node)
        node.update("vcpus_used", to: .nullable(usage.vcpus))
        node.update("memory_mb_used", to: .nullable(usage.memoryMiB))
        node.update("local_gb_used", to: .nullable(usage.localGiB))
        node.update("free_ram_mb", to: .nullable((node.integer("memory_mb") ?? 0) &- usage.memoryMiB))
        node.update("free_disk_gb", to: .nullable((node.integer("local_gb") ?? 0) &- usage.localGiB))
        node.update("current_workload", to: .nullable(usage.statistics.currentWorkload))
        node.update("running_vms", to: .nullable(usage.statistics.instanceCount))
        node.update("metrics", to: "[]")
        let stats = usage.statistics.fieldValue
        if node.stats != stats { node.set("stats", to: stats) }
        if node.object["pci_device_pools"].map(\.isNull) ?? true {
            // No device is passed through. The scheduler takes null for "unknown" and an empty list for "none".
            let pools = VersionedObject(
                name: "PciDevicePoolList", version: profile.version(of: "PciDevicePoolList"), fields: ["objects": []])
            node.set("pci_device_pools", to: pools.primitive)
        }
    }

    func vcpus(of resources: HostResources) -> Int { sharedCPUs?.count ?? resources.vcpus }

    private static func words(_ spec: HVSpec) -> [String?] { ["arch", "hv_type", "vm_mode"].map { spec.string($0) } }
}
