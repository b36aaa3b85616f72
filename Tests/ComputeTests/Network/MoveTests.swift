// The ports of an instance that is resized on its host: the requests of the recorded nova-compute ("resize", "resize-confirm",
// "resize-revert"), and what it does where the ports are not as they should be.
import JSON
import Logging
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import Testing

@testable import Compute

struct MoveTests {
    private static let portID = "505d69f0-e227-4cc9-808e-95e2f94ba8ac"
    private static let query = "device_id=b32d371a-9b1b-46c6-a157-83b93f58edd7&tenant_id=a16b072ee0b744c19c74e02159b7cd14"

    private let vif: JSONValue = ["id": .string(Self.portID), "address": "fa:16:3e:00:00:01", "type": "bridge"]

    private func port(_ more: [String: JSONValue] = [:]) -> JSONValue {
        let base: [String: JSONValue] = [
            "id": .string(Self.portID), "binding:host_id": "ref-host", "binding:vif_type": "bridge", "binding:profile": [:],
        ]
        return .object(base.merging(more) { _, new in new })
    }

    /// Neutron with this port and this answer for its binding.
    private func neutron(
        _ port: JSONValue, binding: NeutronTwin.Answer = .init(json: ["binding": ["status": "ACTIVE"]]),
        activation: NeutronTwin.Answer = .init(), extensions: [JSONValue] = [["alias": "binding-extended"]]
    ) -> NeutronTwin {
        NeutronTwin { request in
            let words = request.line.split(separator: " ")
            if words[1].hasSuffix("/extensions") { return .init(json: ["extensions": .array(extensions)]) }
            if words[1].hasSuffix("/activate") { return activation }
            if words[1].contains("/bindings/") { return binding }
            if words[0] == "PUT" { return .init(json: ["port": port]) }
            return .init(json: ["ports": [port]])
        }
    }

    private func network(_ neutron: NeutronTwin) -> NeutronNetwork {
        NeutronNetwork(
            neutron: neutron, conductor: ConductorTwin().conductor, options: .init(host: "ref-host"), logger: Logger(label: "test"))
    }

    private var instance: Instance {
        var instance = Instance.sample(networkInfo: [vif])
        instance.object.load("host", "ref-host")
        return instance
    }

    @Test func anActiveBindingIsLeftAlone() async throws {
        let neutron = neutron(port())
        try await network(neutron).activateBindings(of: instance, on: "ref-host", context: .user)
        #expect(neutron.linesOfRecords == ["GET /v2.0/ports/\(Self.portID)/bindings/ref-host"])
        #expect(neutron.requests.allSatisfy { $0.authorization == .service })
    }

    @Test func anotherBindingIsActivated() async throws {
        let neutron = neutron(port(), binding: .init(json: ["binding": ["status": "INACTIVE"]]))
        try await network(neutron).activateBindings(of: instance, on: "ref-host", context: .user)
        #expect(neutron.linesOfRecords.last == "PUT /v2.0/ports/\(Self.portID)/bindings/ref-host/activate")
    }

    @Test func aBindingThatCannotBeActivatedIsAnErrorUnlessItIsActive() async throws {
        let inactive = NeutronTwin.Answer(json: ["binding": ["status": "INACTIVE"]])
        let active = neutron(port(), binding: inactive, activation: .init(status: 409))
        try await network(active).activateBindings(of: instance, on: "ref-host", context: .user)
        let failing = neutron(port(), binding: inactive, activation: .init(status: 500))
        let error = await #expect(throws: NovaException.self) {
            try await network(failing).activateBindings(of: instance, on: "ref-host", context: .user)
        }
        #expect(error?.className == "PortBindingActivationFailed")
    }

    @Test func portsWithoutBindingsOfTheirOwnAreLeftAlone() async throws {
        for answer in [NeutronTwin.Answer(status: 404), NeutronTwin.Answer(status: 500)] {
            let neutron = neutron(port(), binding: answer)
            try await network(neutron).activateBindings(of: instance, on: "ref-host", context: .user)
            #expect(neutron.linesOfRecords.count == 1)
        }
        let old = neutron(port(), extensions: [])
        try await network(old).activateBindings(of: instance, on: "ref-host", context: .user)
        #expect(old.linesOfRecords == [])
    }

    @Test func portsThatAreBoundHereStayAsTheyAre() async throws {
        let neutron = neutron(port())
        try await network(neutron).bindPorts(of: instance, to: "ref-host", context: .user)
        #expect(neutron.linesOfRecords == ["GET /v2.0/ports?\(Self.query)"])
    }

    @Test(arguments: [
        ["binding:host_id": "other"] as [String: JSONValue], ["binding:vif_type": "binding_failed"], ["binding:vif_type": "unbound"],
    ])
    func portsThatAreNotAreBoundWithoutTheMarkOfAMove(more: [String: JSONValue]) async throws {
        let marked = more.merging(["binding:profile": ["migrating_to": "ref-host", "a": 1]]) { first, _ in first }
        let neutron = neutron(port(marked))
        try await network(neutron).bindPorts(of: instance, to: "ref-host", context: .user)
        #expect(neutron.linesOfRecords.last == "PUT /v2.0/ports/\(Self.portID)")
        #expect(
            neutron.requests.last?.body?["port"] == [
                "binding:host_id": "ref-host", "device_owner": "compute:nova", "binding:profile": ["a": 1],
            ])
    }

    @Test func theMarkOfAMoveIsTakenOffWhereThereIsOne() async throws {
        let plain = neutron(port())
        try await network(plain).clearMoveMarks(of: instance, context: .user)
        #expect(plain.linesOfRecords == ["GET /v2.0/ports?\(Self.query)&binding%3Ahost_id=ref-host"])
        let marked = neutron(port(["binding:profile": ["migrating_to": "x", "a": 1]]))
        try await network(marked).clearMoveMarks(of: instance, context: .user)
        #expect(marked.linesOfRecords.last == "PUT /v2.0/ports/\(Self.portID)")
        #expect(marked.requests.last?.body?["port"] == ["binding:profile": ["a": 1]])
    }
}
