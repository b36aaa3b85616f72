// nova.objects.InstanceNUMATopology: how the guest's vCPUs and memory lie in cells. The API makes it of the flavor and the image; the
// compute's claim gives each cell a cell of the host and a size of pages.
import JSON

package struct InstanceNUMATopology: NovaObject {
    package static let objectName = "InstanceNUMATopology"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    /// In the order of the guest's nodes.
    package var cells: [InstanceNUMACell] {
        get { elements("cells") }
        set { set("cells", to: .array(newValue.map(\.primitive))) }
    }

    /// How many the message has, whether they can be read or not.
    package var cellCount: Int { object["cells"]?.arrayValue?.count ?? 0 }

    /// `hw:emulator_threads_policy`.
    package var emulatorThreadsPolicy: String? { string("emulator_threads_policy") }

    /// As before any host had it (`clear_host_pinning`).
    package mutating func forgetHost() {
        cells = cells.map { cell in
            var cell = cell
            cell.hostCell = nil
            return cell
        }
    }
}

package struct InstanceNUMACell: NovaObject {
    package static let objectName = "InstanceNUMACell"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    /// Sizes of pages that are no sizes (`MEMPAGES_*`).
    package enum PageRequest { package static let small = -1, large = -2, any = -3 }

    /// The host's cell; nil before a claim. Before one the field has the guest node's number or -1: it is read where a claim is known
    /// to have been.
    package var hostCell: Int? {
        get { integer("id").flatMap { $0 >= 0 ? $0 : nil } }
        set { set("id", to: newValue ?? -1) }
    }
    /// vCPUs that share the host's CPUs.
    package var cpus: Set<Int> { numbers("cpuset") }
    /// vCPUs that are to have a CPU of their own.
    package var pinnedCPUs: Set<Int> { numbers("pcpuset") }
    package var memoryMiB: Int { integer("memory") ?? 0 }
    /// KiB, or a `PageRequest`; nil: nothing was asked for.
    package var pageSizeKiB: Int? {
        get { integer("pagesize") }
        set { set("pagesize", to: newValue) }
    }
    /// Nova's "dedicated" and "mixed" ask for pinned CPUs; before version 1.5 of the object the policy alone told.
    package var asksForPinnedCPUs: Bool { !pinnedCPUs.isEmpty || ["dedicated", "mixed"].contains(string("cpu_policy")) }

    private func numbers(_ field: String) -> Set<Int> { Set(object[field]?.arrayValue?.compactMap(\.intValue) ?? []) }
}

extension Instance {
    package var numaTopology: InstanceNUMATopology? {
        get { nested("numa_topology") }
        set { set("numa_topology", to: newValue?.primitive ?? .null) }
    }

    /// Whether its flavor or its image says something that the API makes cells of.
    package var asksForCells: Bool {
        let specs = flavor?.extraSpecs ?? [:], properties = systemMetadata
        return ["numa_nodes", "mem_page_size", "cpu_policy"].contains { specs["hw:\($0)"] != nil || properties["image_hw_\($0)"] != nil }
    }
}
