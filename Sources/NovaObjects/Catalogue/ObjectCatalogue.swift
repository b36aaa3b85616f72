// The classes of Nova that cross the message bus: their versions in Zed and in the newest release, and which classes their
// fields hold. A class call to the conductor names the version of every class it may answer with (contract §2.4); that tree
// is computed here from the direct references, so that a version is written in one place.

package enum ObjectCatalogue {
    struct Entry: Sendable {
        /// Version in Zed; nil: the class came later.
        let zed: String?
        /// Version in the newest release that is in the table; nil: as in Zed.
        let newest: String?
        /// Classes of its fields.
        let holds: [String]

        init(_ zed: String?, newest: String? = nil, holds: [String] = []) {
            self.zed = zed
            self.newest = newest
            self.holds = holds
        }
    }

    /// The highest version of a class this program reads; nil for a class it does not know.
    package static func newestVersion(of name: String) -> ObjectVersion? {
        guard let entry = entries[name], let text = entry.newest ?? entry.zed else { return nil }
        return ObjectVersion(text)
    }

    /// Names of a class and all that is reachable from it.
    static func tree(of name: String) -> Set<String> {
        var found: Set<String> = []
        var open = [name]
        while let next = open.popLast() {
            guard found.insert(next).inserted, let entry = entries[next] else { continue }
            open.append(contentsOf: entry.holds)
        }
        return found
    }

    static let entries: [String: Entry] = [
        "BlockDeviceMapping": Entry("1.21", holds: ["Instance"]),
        "BlockDeviceMappingList": Entry("1.18", holds: ["BlockDeviceMapping"]),
        "CellMapping": Entry("1.1"),
        "ComputeNode": Entry("1.19", holds: ["HVSpec", "PciDevicePoolList"]),
        "ComputeNodeList": Entry("1.17", holds: ["ComputeNode"]),
        "ConsoleAuthToken": Entry("1.1", newest: "1.3"),
        "CpuDiagnostics": Entry("1.0"),
        "Destination": Entry("1.4", holds: ["CellMapping"]),
        "DeviceBus": Entry("1.0"),
        "DeviceMetadata": Entry("1.0", holds: ["DeviceBus"]),
        "Diagnostics": Entry(
            "1.0", holds: ["MemoryDiagnostics", "CpuDiagnostics", "NicDiagnostics", "DiskDiagnostics"]),
        "DiskDiagnostics": Entry("1.0"),
        "EC2Ids": Entry("1.0"),
        "Flavor": Entry("1.2"),
        "HVSpec": Entry("1.2"),
        "ImageMeta": Entry("1.8", holds: ["ImageMetaProps"]),
        "ImageMetaProps": Entry("1.34", newest: "1.44"),
        "Instance": Entry(
            "2.7", newest: "2.8",
            holds: [
                "ServiceList", "InstanceInfoCache", "SecurityGroupList", "InstanceFault", "PciDeviceList",
                "InstanceNUMATopology", "InstancePCIRequests", "InstanceDeviceMetadata", "TagList", "Flavor",
                "VirtCPUModel", "EC2Ids", "MigrationContext", "ResourceList", "KeyPairList", "TrustedCerts",
            ]),
        "InstanceAction": Entry("1.2"),
        "InstanceActionEvent": Entry("1.4"),
        "InstanceDeviceMetadata": Entry("1.0", holds: ["DeviceMetadata"]),
        "InstanceExternalEvent": Entry("1.5"),
        "InstanceFault": Entry("1.2"),
        "InstanceGroup": Entry("1.11"),
        "InstanceInfoCache": Entry("1.5"),
        "InstanceList": Entry("2.6", holds: ["Instance"]),
        "InstanceNUMACell": Entry("1.6", holds: ["VirtCPUTopology"]),
        "InstanceNUMATopology": Entry("1.3", holds: ["InstanceNUMACell"]),
        "InstancePCIRequest": Entry("1.4"),
        "InstancePCIRequests": Entry("1.1", holds: ["InstancePCIRequest"]),
        "KeyPair": Entry("1.4"),
        "KeyPairList": Entry("1.3", holds: ["KeyPair"]),
        "LibvirtLiveMigrateData": Entry("1.10", newest: "1.14"),
        "MemoryDiagnostics": Entry("1.0"),
        "Migration": Entry("1.7", newest: "1.8"),
        "MigrationContext": Entry(
            "1.2", holds: ["InstanceNUMATopology", "PciDeviceList", "InstancePCIRequests", "ResourceList"]),
        "MigrationList": Entry("1.5", holds: ["Migration"]),
        "NUMATopologyLimits": Entry("1.1", holds: ["NetworkMetadata"]),
        "NetworkMetadata": Entry("1.0"),
        "NetworkRequest": Entry("1.3"),
        "NetworkRequestList": Entry("1.1", holds: ["NetworkRequest"]),
        "NicDiagnostics": Entry("1.0"),
        "PciDevice": Entry("1.7"),
        "PciDeviceList": Entry("1.3", holds: ["PciDevice"]),
        "PciDevicePool": Entry("1.1"),
        "PciDevicePoolList": Entry("1.1", holds: ["PciDevicePool"]),
        "RequestGroup": Entry("1.3"),
        "RequestLevelParams": Entry("1.1"),
        "RequestSpec": Entry(
            "1.14", newest: "1.15",
            holds: [
                "ImageMeta", "InstanceNUMATopology", "InstancePCIRequests", "Flavor", "Destination",
                "SchedulerRetries", "SchedulerLimits", "InstanceGroup", "SecurityGroupList", "NetworkMetadata",
                "RequestGroup", "RequestLevelParams", "NetworkRequestList",
            ]),
        "Resource": Entry("1.0", holds: ["ResourceMetadata"]),
        "ResourceList": Entry("1.0", holds: ["Resource"]),
        "ResourceMetadata": Entry("1.0"),
        "SchedulerLimits": Entry("1.0", holds: ["NUMATopologyLimits"]),
        "SchedulerRetries": Entry("1.1", holds: ["ComputeNodeList"]),
        "SecurityGroup": Entry("1.2"),
        "SecurityGroupList": Entry("1.1", holds: ["SecurityGroup"]),
        "Selection": Entry("1.1", holds: ["SchedulerLimits"]),
        "Service": Entry("1.22", holds: ["ComputeNode"]),
        "ServiceList": Entry("1.19", holds: ["Service"]),
        "ShareMapping": Entry(nil, newest: "1.2"),
        "ShareMappingList": Entry(nil, newest: "1.1", holds: ["ShareMapping"]),
        "Tag": Entry("1.1"),
        "TagList": Entry("1.1", holds: ["Tag"]),
        "TaskLog": Entry("1.0"),
        "TrustedCerts": Entry("1.0"),
        "VIFMigrateData": Entry("1.0"),
        "VirtCPUFeature": Entry("1.0"),
        "VirtCPUModel": Entry("1.0", holds: ["VirtCPUTopology", "VirtCPUFeature"]),
        "VirtCPUTopology": Entry("1.0"),
        "VirtualInterface": Entry("1.3"),
        "VirtualInterfaceList": Entry("1.0", holds: ["VirtualInterface"]),
        "VolumeUsage": Entry("1.0"),
    ]
}
