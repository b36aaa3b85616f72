// Every recorded message: each object in it decodes, and encodes to what it was.
import Foundation
import JSON
import NovaObjects
import Testing

@Suite struct SampleTests {
    static let names: [String] = {
        let folder = Bundle.module.url(forResource: "Samples", withExtension: nil)
        let names = try? FileManager.default.contentsOfDirectory(atPath: folder?.path ?? "")
        return (names ?? []).sorted()
    }()

    static func sample(_ name: String) throws -> JSONValue {
        let folder = try #require(Bundle.module.url(forResource: "Samples", withExtension: nil))
        let data = try Data(contentsOf: folder.appendingPathComponent(name))
        return try JSONValue.parse([UInt8](data), limits: JSONLimits(depth: 128))
    }

    /// All object primitives in a value, those inside of objects and of envelopes' texts too.
    static func primitives(in value: JSONValue) -> [JSONValue] {
        switch value {
        case .array(let elements): elements.flatMap(primitives)
        case .object(let members):
            (VersionedObject.isPrimitive(value) ? [value] : []) + members.values.flatMap(primitives)
        case .string(let text) where text.hasPrefix("{"):
            ((try? JSONValue.parse(text)).map(primitives)) ?? []
        default: []
        }
    }

    /// Change marks have no order: sorted, so that values can be compared.
    static func sortingChanges(_ value: JSONValue) -> JSONValue {
        switch value {
        case .array(let elements): return .array(elements.map(sortingChanges))
        case .object(var members):
            members = members.mapValues(sortingChanges)
            if let names = members["nova_object.changes"]?.arrayValue {
                members["nova_object.changes"] = .array(
                    names.compactMap(\.stringValue).sorted().map { .string($0) })
            }
            return .object(members)
        default: return value
        }
    }

    @Test func `the recordings are there`() {
        #expect(Self.names.count > 50)
    }

    @Test(arguments: names) func `a recorded object encodes to what it was`(name: String) throws {
        for primitive in Self.primitives(in: try Self.sample(name)) {
            // Notification payloads are objects too, but not of the classes that the bus carries.
            let expected = Self.sortingChanges(primitive)
            let object = try VersionedObject(primitive: expected)
            #expect(object.primitive == expected)
        }
    }

    @Test func `a recorded build request reads as an instance with its flavor`() throws {
        let sample = try Self.sample("rpc-compute-build_and_run_instance.json")
        let instance = try Instance(primitive: try #require(sample["args"]?["instance"]))
        #expect(instance.vmState == "building")
        #expect(instance.taskState == "scheduling")
        #expect(instance.uuid.count == 36)
        let specification = try RequestSpec(primitive: try #require(sample["args"]?["request_spec"]))
        #expect(specification.flavor?.memoryMiB == instance.memoryMiB)
        let networks = try NetworkRequestList(primitive: try #require(sample["args"]?["requested_networks"]))
        #expect(try networks.elements().count == 1)
    }

    @Test func `the recorded class call has our manifest`() throws {
        let sample = try Self.sample("rpc-conductor-object_class_action_versions.json")
        let recorded = try #require(sample["request"]?["args"]?["object_versions"]?.objectValue)
        #expect(ReleaseProfile.zed.manifest(of: "Service") == recorded)
    }
}
