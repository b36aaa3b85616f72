import JSON
import NovaObjects
import Testing

@Suite struct VersionedObjectTests {
    static func service(_ fields: [String: JSONValue], version: String = "1.22", changes: [JSONValue] = []) -> JSONValue {
        [
            "nova_object.name": "Service", "nova_object.namespace": "nova",
            "nova_object.version": .string(version), "nova_object.data": .object(fields),
            "nova_object.changes": .array(changes),
        ]
    }

    @Test func `set to null differs from not set`() throws {
        let object = try VersionedObject(primitive: Self.service(["disabled_reason": nil]))
        #expect(object.isSet("disabled_reason"))
        #expect(!object.isSet("uuid"))
        #expect(object["disabled_reason"] == .null)
    }

    @Test func `a change mark of an absent field is dropped`() throws {
        let object = try VersionedObject(primitive: Self.service(["host": "a"], changes: ["host", "planet"]))
        #expect(object.changes == ["host"])
    }

    @Test func `fields nobody knows are kept`() throws {
        let primitive = Self.service(["planet": ["ring": 1]], changes: ["planet"])
        #expect(try VersionedObject(primitive: primitive).primitive == primitive)
    }

    @Test(arguments: ["1.0", "1.22", "1.22.1"]) func `a version up to ours is read`(version: String) throws {
        _ = try Service(primitive: Self.service([:], version: version))
    }

    @Test(arguments: ["1.23", "2.0", "0.9", "1", "x.y", ""])
    func `another version is incompatible`(version: String) throws {
        let primitive = Self.service([:], version: version)
        let error = #expect(throws: ObjectError.self) { try Service(primitive: primitive) }
        #expect(error?.code == .incompatibleVersion)
    }

    @Test func `an object of another class is refused`() {
        #expect(throws: ObjectError.self) { try Flavor(primitive: Self.service([:])) }
    }

    @Test(arguments: [
        JSONValue.null, 1, "Service", [], [:], ["nova_object.name": 1], ["nova_object.name": "Service"],
        ["nova_object.name": "Service", "nova_object.namespace": "nova", "nova_object.version": "1.22"],
        [
            "nova_object.name": "Service", "nova_object.namespace": "nova", "nova_object.version": "1.22",
            "nova_object.data": [],
        ],
        [
            "nova_object.name": "Service", "nova_object.namespace": "other", "nova_object.version": "1.22",
            "nova_object.data": [:],
        ],
    ])
    func `a value that is no object is an error`(value: JSONValue) {
        #expect(throws: ObjectError.self) { try VersionedObject(primitive: value) }
    }

    @Test func `assigning marks a change and updates clear it`() throws {
        var service = try Service(primitive: Self.service(["report_count": 4]))
        #expect(service.object.changes.isEmpty)
        service.reportCount += 1
        #expect(service.object.changes == ["report_count"])
        service.object.apply(updates: ["updated_at": "2026-01-02T03:04:05Z", "obj_what_changed": []])
        #expect(service.object.changes.isEmpty)
        #expect(service.reportCount == 5)
        #expect(service.string("updated_at") == "2026-01-02T03:04:05Z")
    }

    @Test func `updates leave the marks the conductor names and clear those of nested objects`() {
        var inner = VersionedObject(name: "PciDevicePoolList", version: "1.1")
        inner.set("objects", to: [])
        var node = VersionedObject(name: "ComputeNode", version: "1.19")
        node.set("pci_device_pools", to: inner.primitive)
        node.set("vcpus", to: 4)
        node.apply(updates: ["obj_what_changed": ["pci_device_pools", "nonsense"]])
        #expect(node.changes == ["pci_device_pools"])
        #expect(node["pci_device_pools"]?["nova_object.changes"] == nil)
    }

    @Test func `the tree of an instance is the catalogue's`() {
        // Section 2 of the object catalogue, Zed column.
        let expected = """
            Instance 2.7, ServiceList 1.19, Service 1.22, ComputeNode 1.19, HVSpec 1.2, PciDevicePoolList 1.1, \
            PciDevicePool 1.1, InstanceInfoCache 1.5, SecurityGroupList 1.1, SecurityGroup 1.2, InstanceFault 1.2, \
            PciDeviceList 1.3, PciDevice 1.7, InstanceNUMATopology 1.3, InstanceNUMACell 1.6, VirtCPUTopology 1.0, \
            InstancePCIRequests 1.1, InstancePCIRequest 1.4, InstanceDeviceMetadata 1.0, DeviceMetadata 1.0, \
            DeviceBus 1.0, TagList 1.1, Tag 1.1, Flavor 1.2, VirtCPUModel 1.0, VirtCPUFeature 1.0, EC2Ids 1.0, \
            MigrationContext 1.2, ResourceList 1.0, Resource 1.0, ResourceMetadata 1.0, KeyPairList 1.3, KeyPair 1.4, \
            TrustedCerts 1.0
            """
        let pairs = expected.split(separator: ", ").map { $0.split(separator: " ") }
        let versions = Dictionary(
            uniqueKeysWithValues: pairs.map { (String($0[0]), JSONValue.string(String($0[1]))) })
        #expect(ReleaseProfile.zed.manifest(of: "Instance") == versions)
        #expect(ReleaseProfile.named("2026.2")?.manifest(of: "Instance")["Instance"] == "2.8")
    }

    @Test func `releases are found by name and number`() {
        #expect(ReleaseProfile.named("Zed")?.serviceVersion == 64)
        #expect(ReleaseProfile.named("2025.1")?.computeRPCVersion == "6.4")
        #expect(ReleaseProfile.named("yoga") == nil)
    }

    @Test func `network information is a text inside the object`() {
        var cache = InstanceInfoCache(in: .zed)
        cache.networkInfo = [["id": "p1", "active": true]]
        #expect(cache.object["network_info"] == .string("[{\"active\": true, \"id\": \"p1\"}]"))
        #expect(cache.networkInfo == [["id": "p1", "active": true]])
        cache.object.load("network_info", "[{")
        #expect(cache.networkInfo.isEmpty)
    }

    @Test func `a list with one unreadable element fails`() throws {
        let list = InstanceList(
            unchecked: VersionedObject(name: "InstanceList", version: "2.6", fields: ["objects": [1]]))
        #expect(throws: ObjectError.self) { try list.elements() }
    }
}
