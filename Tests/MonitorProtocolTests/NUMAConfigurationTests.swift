import JSON
import MachineConfiguration
import Testing

struct NUMAConfigurationTests {
    private static let text =
        #"{"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":512,"cpu":{"count":4},"kernel":{"fd":3},"hugePages":"2M","#
        + #""numa":{"nodes":[{"cpus":[1,0],"memoryMiB":128,"hostNode":1},{"cpus":[2],"memoryMiB":256},{"cpus":[3],"memoryMiB":128}],"#
        + #""distances":[{"from":0,"to":1,"value":25},{"from":1,"to":0,"value":30},{"from":2,"to":1,"value":40}]}}"#

    private func read(_ text: String) throws(ConfigurationError) -> GuestConfiguration { try GuestConfiguration(parsing: Array(text.utf8)) }

    @Test func nodesDistancesAndPagesAreReadAndWritten() throws {
        let machine = try read(Self.text), numa = try #require(machine.numa)
        #expect(machine.hugePages == .twoMiB && numa.nodes.map(\.memoryMiB) == [128, 256, 128] && numa.nodes.map(\.hostNode) == [1, nil, nil])
        #expect(numa.nodes[0].cpus == [0, 1] && numa.node(ofCPU: 3) == 2 && numa.node(ofCPU: 4) == nil)
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
    }

    @Test func aDistanceHoldsForBothDirectionsUnlessBothAreGiven() throws {
        let numa = try #require(try read(Self.text).numa)
        let matrix = (0..<3).map { from in (0..<3).map { numa.distance(from: from, to: $0) } }
        #expect(matrix == [[10, 25, 20], [30, 10, 40], [20, 40, 10]])
    }

    @Test func aMachineWithoutNodesSaysNothingOfThem() throws {
        let machine = try read(#"{"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":64,"cpu":{"count":1},"kernel":{"fd":3}}"#)
        #expect(machine.numa == nil && machine.hugePages == nil && machine.json["numa"] == nil && machine.json["hugePages"] == nil)
    }

    @Test(
        arguments: [
            (#""memoryMiB":256}"#, #""memoryMiB":257}"#, "numa.nodes[1].memoryMiB"), (#""memoryMiB":256}"#, #""memoryMiB":258}"#, "numa.nodes"),
            (#""memoryMiB":512"#, #""memoryMiB":511"#, "memoryMiB"), (#""2M""#, #""1G""#, "memoryMiB"), (#""2M""#, #""4K""#, "hugePages"),
            (#""cpus":[2]"#, #""cpus":[2,1]"#, "numa.nodes[1].cpus"), (#""cpus":[2]"#, #""cpus":[]"#, "numa.nodes"),
            (#""cpus":[2]"#, #""cpus":[2,4]"#, "numa.nodes[1].cpus"), (#""cpus":[2]"#, #""cpus":[2,2]"#, "numa.nodes[1].cpus"),
            (#""cpus":[2]"#, #""cpus":[64]"#, "numa.nodes[1].cpus[0]"), (#""hostNode":1"#, #""hostNode":1024"#, "numa.nodes[0].hostNode"),
            (#""to":1,"value":25"#, #""to":0,"value":25"#, "numa.distances[0]"), (#""to":1,"value":25"#, #""to":3,"value":25"#, "numa.distances[0]"),
            (#""value":25"#, #""value":10"#, "numa.distances[0].value"), (#""value":25"#, #""value":255"#, "numa.distances[0].value"),
            (#""cpus":[2],"#, #""cpus":[2],"cpu":1,"#, "numa.nodes[1].cpu"),
        ])
    func whatNodesCannotBeIsRefused(old: String, new: String, place: String) throws {
        let parts = Self.text.split(separator: old, maxSplits: 1, omittingEmptySubsequences: false)
        try #require(parts.count == 2)
        let refusal = #expect(throws: ConfigurationError.self) { try read(String(parts[0] + new + parts[1])) }
        #expect(refusal?.path == place, "\(String(describing: refusal))")
    }

    @Test func noNodesAtAllAreNotTheSameAsNone() {
        var machine = GuestConfiguration(name: "a", uuid: .zero, memoryMiB: 64, cpu: CPUConfiguration(count: 1), kernel: 3)
        machine.numa = NUMAConfiguration()
        let refusal = #expect(throws: ConfigurationError.self) { try machine.checkMemory() }
        #expect(refusal?.path == "numa.nodes")
    }
}
