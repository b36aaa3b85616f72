// Placement in memory: one root provider per uuid, generations that rise with each write, and conflicts where a writer
// comes with an old one.
import OpenStackHTTP
import Placement
import Synchronization

final class MemoryPlacement: PlacementAPI {
    struct Provider {
        var record: ResourceProvider
        var inventories: [String: Inventory] = [:]
        var traits: Set<String> = []
        var allocations: [String: [String: Int]] = [:]
    }
    struct State {
        var providers: [String: Provider] = [:]
        var writes: [String] = []
        /// Called before each write, to be another writer.
        var beforeWrite: (@Sendable (inout Provider) -> Void)?
        var unreachable = false
        var refusedTraits: Set<String> = []
    }
    private let state = Mutex(State())

    func change(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }
    func read<Value>(_ body: (State) -> Value) -> Value { state.withLock { body($0) } }

    private func provider<Value>(_ uuid: String, _ body: (inout Provider) throws(ServiceFault) -> Value)
        throws(ServiceFault) -> Value
    {
        try state.withLock { state throws(ServiceFault) in
            if state.unreachable { throw Self.fault(.unreachable, "connection refused") }
            guard var provider = state.providers[uuid] else { throw Self.fault(.status(404), "No resource provider") }
            defer { state.providers[uuid] = provider }
            return try body(&provider)
        }
    }

    private func write(
        _ what: String, _ uuid: String, _ generation: Int, _ body: (inout Provider) throws(ServiceFault) -> Void
    )
        throws(ServiceFault) -> Int
    {
        let other = state.withLock { state in
            state.writes.append(what)
            defer { state.beforeWrite = nil }
            return state.beforeWrite
        }
        return try provider(uuid) { provider throws(ServiceFault) in
            other?(&provider)
            guard provider.record.generation == generation else {
                throw Self.fault(.status(409), "resource provider generation conflict", "placement.concurrent_update")
            }
            try body(&provider)
            provider.record.generation += 1
            return provider.record.generation
        }
    }

    static func fault(_ kind: ServiceFault.Kind, _ body: String, _ code: String? = nil) -> ServiceFault {
        ServiceFault(kind: kind, request: "test", service: "placement", body: body, code: code)
    }

    func providers(inTreeOf uuid: String) async throws -> [ResourceProvider] {
        try state.withLock { state throws(ServiceFault) in
            if state.unreachable { throw Self.fault(.unreachable, "connection refused") }
            return state.providers[uuid].map { [$0.record] } ?? []
        }
    }
    func createProvider(uuid: String, name: String) async throws -> ResourceProvider {
        state.withLock { state in
            let record = ResourceProvider(uuid: uuid, name: name, generation: 0)
            state.providers[uuid] = Provider(record: record)
            state.writes.append("create")
            return record
        }
    }
    func inventories(of uuid: String) async throws -> (inventories: [String: Inventory], generation: Int) {
        try provider(uuid) { ($0.inventories, $0.record.generation) }
    }
    func setInventories(_ inventories: [String: Inventory], of uuid: String, generation: Int) async throws -> Int {
        try write("inventories", uuid, generation) { provider throws(ServiceFault) in
            let held = Set(provider.allocations.values.flatMap(\.keys))
            guard held.subtracting(inventories.keys).isEmpty else {
                throw Self.fault(.status(409), "inventory in use", "placement.inventory.inuse")
            }
            provider.inventories = inventories
        }
    }
    func traits(of uuid: String) async throws -> (traits: Set<String>, generation: Int) {
        try provider(uuid) { ($0.traits, $0.record.generation) }
    }
    func setTraits(_ traits: Set<String>, of uuid: String, generation: Int) async throws -> Int {
        let refused = state.withLock { $0.refusedTraits.intersection(traits) }
        guard refused.isEmpty else { throw Self.fault(.status(400), "\(refused) is not valid") }
        return try write("traits", uuid, generation) { $0.traits = traits }
    }
    func aggregates(of uuid: String) async throws -> (aggregates: Set<String>, generation: Int) {
        try provider(uuid) { ([], $0.record.generation) }
    }
    func allocations(onProvider uuid: String) async throws -> [String: [String: Int]] {
        try provider(uuid) { $0.allocations }
    }
    func allocations(ofConsumer consumer: String) async throws -> Allocations {
        state.withLock { state in
            Allocations(byProvider: state.providers.compactMapValues { $0.allocations[consumer] })
        }
    }
    func setAllocations(_ allocations: Allocations, ofConsumer consumer: String) async throws {
        state.withLock { state in
            for uuid in state.providers.keys {
                state.providers[uuid]?.allocations[consumer] = allocations.byProvider[uuid]
            }
        }
    }
    func setAllocations(_ byConsumer: [String: Allocations]) async throws {
        let isUnreachable = state.withLock { $0.unreachable }
        if isUnreachable { throw Self.fault(.unreachable, "connection refused") }
        for (consumer, allocations) in byConsumer { try await setAllocations(allocations, ofConsumer: consumer) }
    }
    func deleteAllocations(ofConsumer consumer: String) async throws {
        state.withLock { state in
            for uuid in state.providers.keys { state.providers[uuid]?.allocations[consumer] = nil }
        }
    }
    func deleteProvider(_ uuid: String) async throws { state.withLock { $0.providers[uuid] = nil } }
}
