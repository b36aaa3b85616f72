// Answers of Neutron bent in every way a peer can bend JSON: keys gone, values of other types, huge numbers, odd text. The
// network information may come out empty or the operation may fail, but nothing traps, and what is stored stays a list of
// interfaces. The seed is fixed: a failure repeats.
import JSON
import Logging
import NovaObjects
import Synchronization
import Testing

@testable import Compute

/// SplitMix64.
private struct Dice: RandomNumberGenerator, Sendable {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

struct MutatedAnswersTests {
    private static let oddValues: [JSONValue] = [
        .null, true, false, 0, -1, .integer(.max), .integer(.min), 1e308, -0.5, "", " ", "::", "10.0.0.0/99", "/", "999.1.1.1",
        "2001:db8::/64", "fe80::1%eth0", "\u{0}\u{1F600}", .string(String(repeating: "x", count: 5000)), [], [:], [[]],
        ["id": .null], [["id": 7]], ["a", 1, .null, [:]],
    ]

    private static func mutate(_ value: JSONValue, _ dice: inout Dice) -> JSONValue {
        // About one value in sixteen is replaced outright.
        if UInt8.random(in: 0..<16, using: &dice) == 0 {
            return oddValues[Int.random(in: 0..<oddValues.count, using: &dice)]
        }
        switch value {
        case .array(let elements):
            var mutated = elements.map { mutate($0, &dice) }
            switch UInt8.random(in: 0..<12, using: &dice) {
            case 0: mutated.append(contentsOf: elements)
            case 1: mutated.reverse()
            case 2: mutated.append(oddValues[Int.random(in: 0..<oddValues.count, using: &dice)])
            default: break
            }
            return .array(mutated)
        case .object(let members):
            var mutated: [String: JSONValue] = [:]
            // Sorted: the dice fall alike in every run.
            for key in members.keys.sorted() where UInt8.random(in: 0..<24, using: &dice) != 0 {
                mutated[key] = mutate(members[key] ?? .null, &dice)
            }
            return .object(mutated)
        default:
            return value
        }
    }

    @Test(arguments: ["create", "attach-port", "refresh-one", "start", "shelve", "delete"])
    func noAnswerTraps(_ name: String) async throws {
        let exchange = try RecordedExchange(name)
        let networkID = "0e8fba90-b406-4db7-b76e-6393eb8da17b"
        var outcomes = (stored: 0, failed: 0)
        for round in 0..<400 {
            let dice = Mutex(Dice(state: UInt64(round)))
            let twin = exchange.twin()
            let bent = NeutronTwin { request in
                var answer = twin.handler(request)
                answer.json = dice.withLock { Self.mutate(answer.json, &$0) }
                // A request that a bent answer led to was never recorded; it is answered with something.
                if answer.status == 599 {
                    answer.status = 200
                    answer.json = dice.withLock { Self.oddValues[Int.random(in: 0..<Self.oddValues.count, using: &$0)] }
                }
                return answer
            }
            let before = dice.withLock { dice in round % 2 == 0 ? exchange.before : exchange.before.map { Self.mutate($0, &dice) } }
            let conductor = ConductorTwin(
                networkInfo: before,
                answers: ["VirtualInterfaceList.get_by_instance_uuid": VirtualInterfaceList([], in: .zed).primitive])
            let network = NeutronNetwork(
                neutron: bent, conductor: conductor.conductor, options: .init(host: "h"), logger: Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() })
            let instance = Instance.sample(networkInfo: before)
            do {
                switch name {
                case "create", "attach-port":
                    var request = NetworkRequest(in: .zed)
                    let key = name == "create" ? "network_id" : "port_id"
                    request.set(key, to: name == "create" ? networkID : "41e88821-65bc-404a-beb0-d778919456f2")
                    let info = try await network.allocate(
                        for: instance, requested: NetworkRequestList([request], in: .zed), securityGroups: [], context: .user)
                    _ = info.map(\.interfaceRequest)
                case "delete":
                    try await network.deallocate(for: instance, requested: nil, context: .user)
                default:
                    try await network.refresh(
                        instance, portID: name == "refresh-one" ? "41e88821-65bc-404a-beb0-d778919456f2" : nil, context: .user)
                }
                outcomes.stored += 1
            } catch {
                outcomes.failed += 1
            }
            let stored = conductor.networkInfo
            _ = NetworkData.make(stored.map { VIF($0) })
            #expect(network.locks.heldCount == 0)
            if conductor.names.contains("InstanceInfoCache.save") {
                #expect(stored.allSatisfy { VIF($0).json.objectValue != nil || before.contains($0) })
            }
        }
        // Both happened: the answers are bent, but not beyond recognition.
        #expect(outcomes.stored > 20)
        if name != "delete" { #expect(outcomes.failed + outcomes.stored == 400) }
    }
}
