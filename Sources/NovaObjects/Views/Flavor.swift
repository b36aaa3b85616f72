// nova.objects.Flavor: what a server is promised.

/// The resources of a kind of server.
package struct Flavor: NovaObject {
    package static let objectName = "Flavor"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var id: Int? { integer("id") }
    package var name: String { string("name") ?? "" }
    package var flavorID: String? { string("flavorid") }
    package var memoryMiB: Int { integer("memory_mb") ?? 0 }
    package var vcpus: Int { integer("vcpus") ?? 0 }
    package var rootGiB: Int { integer("root_gb") ?? 0 }
    package var ephemeralGiB: Int { integer("ephemeral_gb") ?? 0 }
    /// MiB, unlike the other disks.
    package var swapMiB: Int { integer("swap") ?? 0 }
    package var extraSpecs: [String: String] { dictionary("extra_specs") }
}
