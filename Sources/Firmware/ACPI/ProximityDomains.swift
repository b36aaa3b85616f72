// The guest's nodes as two tables tell them: which processor and which RAM is in which (SRAT, ACPI 6.5 §5.2.16), and how far they are
// from each other (SLIT, §5.2.17). Nodes are numbered from 0; the numbers are the tables' proximity domains.

/// Nodes, for the tables.
package struct ProximityDomains: Sendable, Equatable {
    package struct MemoryRange: Sendable, Equatable {
        /// Guest-physical, in bytes.
        package let base: UInt64
        package let byteCount: UInt64
        package let node: Int

        package init(base: UInt64, byteCount: UInt64, node: Int) {
            self.base = base
            self.byteCount = byteCount
            self.node = node
        }
    }

    /// The node of each vCPU, in their order.
    package var processors: [Int]
    /// All RAM, ascending. A node on both sides of the hole below 4 GiB has two ranges.
    package var memory: [MemoryRange]
    /// By the node from which, then to which: 10 is local. As many rows as nodes, of as many columns.
    package var distances: [[UInt8]]

    package init(processors: [Int], memory: [MemoryRange], distances: [[UInt8]]) {
        self.processors = processors
        self.memory = memory
        self.distances = distances
    }

    private static let isEnabled: UInt64 = 1

    /// SRAT's body.
    func affinityBody(apicIDs: [UInt32]) -> [UInt8] {
        // The first reserved field must be 1, for the sake of old readers.
        var body = AML.little(1, 4) + AML.little(0, 8)
        for (id, node) in zip(apicIDs, processors) {
            let domain = AML.little(UInt64(clamping: node), 4)
            if id < 255 {
                // §5.2.16.1: an APIC id of 8 bits; the domain's low byte and its three others lie apart.
                body += [0, 16, domain[0], UInt8(truncatingIfNeeded: id)] + AML.little(Self.isEnabled, 4) + [0] + domain[1...] + AML.little(0, 4)
            } else {
                // §5.2.16.3: an x2APIC id.
                body += [2, 24, 0, 0] + domain + AML.little(UInt64(id), 4) + AML.little(Self.isEnabled, 4) + AML.little(0, 4) + AML.little(0, 4)
            }
        }
        for range in memory {
            // §5.2.16.2
            body += [1, 40] + AML.little(UInt64(clamping: range.node), 4) + [0, 0] + AML.little(range.base, 8) + AML.little(range.byteCount, 8)
            body += AML.little(0, 4) + AML.little(Self.isEnabled, 4) + AML.little(0, 8)
        }
        return body
    }

    /// SLIT's body.
    var localityBody: [UInt8] { AML.little(UInt64(distances.count), 8) + distances.flatMap { $0 } }
}
