// How a machine's processors and RAM lie in nodes, and what pages RAM is of. Absent: one node, of which nothing is said, of small
// pages.
import JSON

/// The guest's nodes, in the order of their numbers. Every vCPU is in one, and their memory is all of the machine's: node 0's first.
package struct NUMAConfiguration: Sendable, Equatable {
    package struct Node: Sendable, Equatable {
        /// Numbers of vCPUs, ascending; may be empty.
        package var cpus: [Int]
        /// MiB, at least 1 and a multiple of the pages' size.
        package var memoryMiB: Int
        /// The host's node that the memory is of, and of no other; nil: as it comes.
        package var hostNode: Int?

        package init(cpus: [Int], memoryMiB: Int, hostNode: Int? = nil) {
            self.cpus = cpus
            self.memoryMiB = memoryMiB
            self.hostNode = hostNode
        }
    }

    /// From one node to another, in the unit of ACPI 6.5 §5.2.17: 10 is local, 20 takes twice as long.
    package struct Distance: Sendable, Equatable {
        package var from: Int
        package var to: Int
        /// 11 to 254.
        package var value: Int

        package init(from: Int, to: Int, value: Int) {
            self.from = from
            self.to = to
            self.value = value
        }
    }

    package static let nodeLimit = 64, hostNodeLimit = 1024
    package static let localDistance = 10, usualDistance = 20, distances = 11...254

    package var nodes: [Node]
    /// Those that are not `usualDistance`; one that is given for a single direction is that of both.
    package var distances: [Distance]

    package init(nodes: [Node] = [], distances: [Distance] = []) {
        self.nodes = nodes
        self.distances = distances
    }

    /// The distance between any two nodes.
    package func distance(from: Int, to: Int) -> Int {
        if from == to { return Self.localDistance }
        let known = distances.last { $0.from == from && $0.to == to } ?? distances.last { $0.from == to && $0.to == from }
        return known?.value ?? Self.usualDistance
    }

    /// The node of a vCPU; nil where none has it.
    package func node(ofCPU cpu: Int) -> Int? { nodes.firstIndex { $0.cpus.contains(cpu) } }
}

/// Huge pages that RAM may be of.
package enum HugePageSize: String, Sendable, CaseIterable {
    case twoMiB = "2M"
    case oneGiB = "1G"

    package var mebibytes: Int { self == .twoMiB ? 2 : 1024 }
}

extension GuestConfiguration {
    /// What only nodes, processors, RAM and pages together can say. Reading the text has done this; a configuration made by hand
    /// needs it.
    package func checkMemory() throws(ConfigurationError) {
        let pageMiB = hugePages?.mebibytes ?? 1
        guard memoryMiB % pageMiB == 0 else {
            throw ConfigurationError(path: "memoryMiB", reason: "\(memoryMiB) is no multiple of the \(pageMiB) MiB of its pages")
        }
        guard let numa else { return }
        guard (1...NUMAConfiguration.nodeLimit).contains(numa.nodes.count) else {
            throw ConfigurationError(path: "numa.nodes", reason: "\(numa.nodes.count) nodes; give 1 to \(NUMAConfiguration.nodeLimit)")
        }
        var owners: [Int: Int] = [:], sum = 0
        for (index, node) in numa.nodes.enumerated() {
            let path = "numa.nodes[\(index)]"
            guard (1...1_048_576).contains(node.memoryMiB), node.memoryMiB % pageMiB == 0 else {
                throw ConfigurationError(path: "\(path).memoryMiB", reason: "\(node.memoryMiB) is no multiple of \(pageMiB) MiB")
            }
            sum += node.memoryMiB
            guard node.hostNode.map({ (0..<NUMAConfiguration.hostNodeLimit).contains($0) }) ?? true else {
                throw ConfigurationError(path: "\(path).hostNode", reason: "not from 0 to \(NUMAConfiguration.hostNodeLimit - 1)")
            }
            for number in node.cpus {
                guard (0..<cpu.count).contains(number) else {
                    throw ConfigurationError(path: "\(path).cpus", reason: "there is no vCPU \(number) of \(cpu.count)")
                }
                if let other = owners.updateValue(index, forKey: number) {
                    throw ConfigurationError(path: "\(path).cpus", reason: "vCPU \(number) is in node \(other) already")
                }
            }
        }
        if let missing = (0..<cpu.count).first(where: { owners[$0] == nil }) {
            throw ConfigurationError(path: "numa.nodes", reason: "vCPU \(missing) is in none of them")
        }
        guard sum == memoryMiB else {
            throw ConfigurationError(path: "numa.nodes", reason: "they have \(sum) MiB of the machine's \(memoryMiB)")
        }
        for (index, one) in numa.distances.enumerated() {
            let path = "numa.distances[\(index)]"
            guard numa.nodes.indices.contains(one.from), numa.nodes.indices.contains(one.to), one.from != one.to else {
                throw ConfigurationError(path: path, reason: "\(one.from) and \(one.to) are not two of the \(numa.nodes.count) nodes")
            }
            guard NUMAConfiguration.distances.contains(one.value) else {
                throw ConfigurationError(path: "\(path).value", reason: "\(one.value) is not from 11 to 254")
            }
        }
    }
}

// MARK: As JSON

extension NUMAConfiguration {
    static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> NUMAConfiguration {
        NUMAConfiguration(
            nodes: try members.objects("nodes", upTo: nodeLimit, Node.read),
            distances: try members.objects("distances", upTo: nodeLimit * nodeLimit, Distance.read))
    }

    var json: JSONValue {
        var members: [String: JSONValue] = ["nodes": .array(nodes.map(\.json))]
        if !distances.isEmpty { members["distances"] = .array(distances.map(\.json)) }
        return .object(members)
    }
}

extension NUMAConfiguration.Node {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> NUMAConfiguration.Node {
        NUMAConfiguration.Node(
            cpus: try members.integers("cpus", in: 0...63, upTo: 64).sorted(), memoryMiB: try members.integer("memoryMiB", in: 1...1_048_576),
            hostNode: try members.integerIfPresent("hostNode", in: 0...(NUMAConfiguration.hostNodeLimit - 1)))
    }

    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = ["cpus": .array(cpus.map { .integer(Int64($0)) }), "memoryMiB": .integer(Int64(memoryMiB))]
        if let hostNode { members["hostNode"] = .integer(Int64(hostNode)) }
        return .object(members)
    }
}

extension NUMAConfiguration.Distance {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> NUMAConfiguration.Distance {
        NUMAConfiguration.Distance(
            from: try members.integer("from", in: 0...(NUMAConfiguration.nodeLimit - 1)), to: try members.integer("to", in: 0...(NUMAConfiguration.nodeLimit - 1)),
            value: try members.integer("value", in: NUMAConfiguration.distances))
    }

    fileprivate var json: JSONValue { ["from": .integer(Int64(from)), "to": .integer(Int64(to)), "value": .integer(Int64(value))] }
}
