// What a compute service says about itself, by release of the control plane (contract §0). The service version decides what
// the control plane sends; the object versions what the conductor answers with.
package import JSON

/// One OpenStack release as a compute service sees it.
package struct ReleaseProfile: Sendable {
    /// Code name, lower case: "zed".
    package let name: String
    /// Names for the same that operators write: "26", "2024.1".
    package let aliases: [String]
    /// Number in this service's Service record.
    package let serviceVersion: Int
    /// Version of the compute RPC API it serves.
    package let computeRPCVersion: String
    /// Lowest service version of any compute this release works beside; nil: not known, not checked.
    package let oldestServiceVersion: Int?
    /// True where object versions are those of the newest release of the table; Zed's otherwise: a conductor answers in
    /// the version it is asked for, so the older number is right for the releases between.
    let usesNewestObjects: Bool
    /// Defaults of nova.conf that differ by release.
    package let initialCPUAllocationRatio: Double
    package let initialRAMAllocationRatio: Double

    init(
        _ name: String, aliases: [String], serviceVersion: Int, computeRPCVersion: String,
        oldestServiceVersion: Int? = nil, usesNewestObjects: Bool = false, initialCPUAllocationRatio: Double = 16.0,
        initialRAMAllocationRatio: Double = 1.5
    ) {
        self.name = name
        self.aliases = aliases
        self.serviceVersion = serviceVersion
        self.computeRPCVersion = computeRPCVersion
        self.oldestServiceVersion = oldestServiceVersion
        self.usesNewestObjects = usesNewestObjects
        self.initialCPUAllocationRatio = initialCPUAllocationRatio
        self.initialRAMAllocationRatio = initialRAMAllocationRatio
    }

    /// The version of a class in this release; "1.0" for a class the catalogue does not have.
    package func version(of objectName: String) -> String {
        guard let entry = ObjectCatalogue.entries[objectName] else { return "1.0" }
        return (usesNewestObjects ? entry.newest ?? entry.zed : entry.zed ?? entry.newest) ?? "1.0"
    }

    /// The versions of a class and of every class reachable from it, as class calls send them.
    package func manifest(of objectName: String) -> [String: JSONValue] {
        var versions: [String: JSONValue] = [:]
        for name in ObjectCatalogue.tree(of: objectName) { versions[name] = .string(version(of: name)) }
        return versions
    }

    /// The release this service is tested against.
    package static let tested = zed

    package static let zed = ReleaseProfile(
        "zed", aliases: ["26", "2022.2"], serviceVersion: 64, computeRPCVersion: "6.1", oldestServiceVersion: 61)

    package static let all: [ReleaseProfile] = [
        zed,
        ReleaseProfile("antelope", aliases: ["27", "2023.1"], serviceVersion: 66, computeRPCVersion: "6.2"),
        ReleaseProfile("bobcat", aliases: ["28", "2023.2"], serviceVersion: 66, computeRPCVersion: "6.2"),
        ReleaseProfile("caracal", aliases: ["29", "2024.1"], serviceVersion: 66, computeRPCVersion: "6.3"),
        ReleaseProfile("dalmatian", aliases: ["30", "2024.2"], serviceVersion: 67, computeRPCVersion: "6.3"),
        ReleaseProfile("epoxy", aliases: ["31", "2025.1"], serviceVersion: 68, computeRPCVersion: "6.4"),
        ReleaseProfile("flamingo", aliases: ["32", "2025.2"], serviceVersion: 70, computeRPCVersion: "6.4"),
        ReleaseProfile("gazpacho", aliases: ["33", "2026.1"], serviceVersion: 72, computeRPCVersion: "6.5"),
        ReleaseProfile(
            "hibiscus", aliases: ["34", "2026.2"], serviceVersion: 74, computeRPCVersion: "6.5",
            oldestServiceVersion: 72, usesNewestObjects: true, initialCPUAllocationRatio: 4.0,
            initialRAMAllocationRatio: 1.0),
    ]

    /// The release an operator named; nil for a name that is not in the table.
    package static func named(_ text: String) -> ReleaseProfile? {
        let name = text.lowercased()
        return all.first { $0.name == name || $0.aliases.contains(name) }
    }
}
