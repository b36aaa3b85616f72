// The content of a config drive: paths, keys by version, values. Expected values are those nova.api.metadata.base makes.
import Foundation
import JSON
import NovaObjects
import OsloMessaging
import Synchronization
import Testing

@testable import Compute

struct ConfigDriveTests {
    private static let versions = [
        "2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27",
        "2020-10-14", "latest",
    ]

    private static func ec2(_ more: [String: JSONValue] = [:]) -> JSONValue {
        var ids = EC2Ids(in: .zed)
        let fields: [String: JSONValue] = [
            "instance_id": "i-00000007", "ami_id": "ami-00000001", "kernel_id": .null, "ramdisk_id": .null,
        ]
        for (field, value) in fields.merging(more, uniquingKeysWith: { _, new in new }) { ids.object.load(field, value) }
        return ids.primitive
    }

    private static func keyPairs() -> JSONValue {
        let pair = VersionedObject(
            name: "KeyPair", version: "1.4",
            fields: ["name": "mykey", "type": "ssh", "public_key": "ssh-ed25519 AAAA u@h", "user_id": "u"])
        return VersionedObject(name: "KeyPairList", version: "1.3", fields: ["objects": [pair.primitive]]).primitive
    }

    private static func instance(_ fields: [String: JSONValue] = [:]) -> Instance {
        var instance = Instance.sample()
        let base: [String: JSONValue] = [
            "launch_index": 0, "reservation_id": "r-1", "root_device_name": "/dev/vda", "ec2_ids": ec2(), "key_name": .null,
            "user_data": .null, "metadata": [:], "device_metadata": .null, "numa_topology": .null,
        ]
        for (field, value) in base.merging(fields, uniquingKeysWith: { _, new in new }) { instance.object.load(field, value) }
        return instance
    }

    private static func conductor(_ mappings: [BlockDeviceMapping] = []) -> ConductorTwin {
        ConductorTwin(answers: [
            "BlockDeviceMappingList.get_by_instance_uuid": BlockDeviceMappingList(mappings, in: .zed).primitive
        ])
    }

    private func drive(
        _ instance: Instance, _ networkInfo: NetworkInfo = [], conductor: ConductorTwin = conductor(),
        neutron: NeutronTwin? = nil, files: [(path: String, content: [UInt8])] = [], password: String? = nil,
        options: ConfigDriveMetadata.Options = .init()
    ) async throws -> [String: [UInt8]] {
        try await ConfigDriveMetadata(conductor: conductor.conductor, neutron: neutron, options: options).configDrive(
            for: instance, networkInfo: networkInfo, injectedFiles: files, adminPassword: password, context: .user)
    }

    private static func json(_ files: [String: [UInt8]], _ path: String) throws -> JSONValue {
        try JSONValue.parse(try #require(files[path]))
    }

    // MARK: Paths

    @Test func eachVersionHasItsFiles() async throws {
        let files = try await drive(Self.instance(["user_data": "IyEvYmluL3NoCg=="]))
        var expected: Set<String> = []
        for version in Self.versions {
            expected.formUnion(["meta_data.json", "user_data"].map { "openstack/\(version)/\($0)" })
            if version >= "2013-10-17" { expected.insert("openstack/\(version)/vendor_data.json") }
            if version >= "2015-10-15" { expected.insert("openstack/\(version)/network_data.json") }
            if version >= "2016-10-06" { expected.insert("openstack/\(version)/vendor_data2.json") }
        }
        for version in ["2009-04-04", "latest"] {
            expected.formUnion(["ec2/\(version)/meta-data.json", "ec2/\(version)/user-data"])
        }
        #expect(Set(files.keys) == expected)
        #expect(files["openstack/latest/user_data"] == Array("#!/bin/sh\n".utf8))
        #expect(files["ec2/2009-04-04/user-data"] == Array("#!/bin/sh\n".utf8))
    }

    @Test func withoutUserDataThereIsNoFileOfIt() async throws {
        let files = try await drive(Self.instance())
        #expect(!files.keys.contains { $0.hasSuffix("user_data") || $0.hasSuffix("user-data") })
    }

    @Test func userDataThatIsNotBase64IsRefused() async throws {
        let error = await #expect(throws: NovaException.self) { _ = try await drive(Self.instance(["user_data": "a"])) }
        #expect(error?.className == "InstanceUserDataMalformed")
    }

    // MARK: meta_data.json

    @Test func keysComeWithTheirVersion() async throws {
        let files = try await drive(Self.instance())
        var keys: Set<String> = ["uuid", "hostname", "name", "launch_index", "availability_zone"]
        let added: [String: [String]] = [
            "2013-04-04": ["random_seed"], "2015-10-15": ["project_id"], "2016-06-30": ["devices"],
            "2020-10-14": ["dedicated_cpus"],
        ]
        for version in Self.versions {
            keys.formUnion(added[version] ?? [])
            let data = try Self.json(files, "openstack/\(version)/meta_data.json")
            #expect(Set(data.objectValue?.keys ?? [:].keys) == keys, "\(version)")
        }
    }

    @Test func valuesAreTheInstances() async throws {
        let files = try await drive(
            Self.instance(["key_name": "mykey", "keypairs": Self.keyPairs(), "metadata": ["role": "web"]]),
            files: [("/etc/motd", [1, 2]), ("/root/x", [3])], password: "secret")
        let data = try Self.json(files, "openstack/latest/meta_data.json")
        #expect(data["uuid"] == "b32d371a-9b1b-46c6-a157-83b93f58edd7")
        #expect(data["hostname"] == "rec-1.novalocal")
        #expect(data["name"] == "rec-1")
        #expect(data["availability_zone"] == "nova")
        #expect(data["project_id"] == "a16b072ee0b744c19c74e02159b7cd14")
        #expect(data["meta"] == ["role": "web"])
        #expect(data["admin_pass"] == "secret")
        #expect(data["public_keys"] == ["mykey": "ssh-ed25519 AAAA u@h"])
        #expect(data["keys"] == [["name": "mykey", "type": "ssh", "data": "ssh-ed25519 AAAA u@h"]])
        #expect(
            data["files"] == [
                ["path": "/etc/motd", "content_path": "/content/0000"], ["path": "/root/x", "content_path": "/content/0001"],
            ])
        #expect(files["openstack/content/0000"] == [1, 2])
        #expect(files["openstack/content/0001"] == [3])
        #expect(data["devices"] == [])
        #expect(data["dedicated_cpus"] == [])
    }

    @Test func eachVersionHasARandomSeedOfItsOwn() async throws {
        let files = try await drive(Self.instance())
        let seeds = try Self.versions.dropFirst().map {
            try #require(try Self.json(files, "openstack/\($0)/meta_data.json")["random_seed"]?.stringValue)
        }
        #expect(Set(seeds).count == seeds.count)
        #expect(Data(base64Encoded: seeds[0])?.count == 512)
    }

    @Test func withoutADomainTheHostNameStandsAlone() async throws {
        let files = try await drive(Self.instance(), options: .init(dhcpDomain: ""))
        #expect(try Self.json(files, "openstack/latest/meta_data.json")["hostname"] == "rec-1")
    }

    @Test func taggedDevicesAreListedAsTheVersionKnowsThem() async throws {
        func object(_ name: String, _ fields: [String: JSONValue]) -> JSONValue {
            VersionedObject(name: name, version: "1.0", fields: fields).primitive
        }
        let devices = object(
            "InstanceDeviceMetadata",
            [
                "devices": [
                    object(
                        "NetworkInterfaceMetadata",
                        [
                            "mac": "fa:16:3e:00:00:01", "tags": ["nic1"], "vlan": 7,
                            "bus": object("PCIDeviceBus", ["address": "0000:00:03.0"]),
                        ]),
                    object("DiskMetadata", ["serial": "s", "tags": ["db"], "bus": object("SCSIDeviceBus", [:])]),
                    object("DiskMetadata", ["bus": object("NoSuchBus", [:])]), object("NetworkInterfaceMetadata", ["mac": "m"]),
                    "nonsense",
                ]
            ])
        let files = try await drive(Self.instance(["device_metadata": devices]))
        let nic: [String: JSONValue] = [
            "type": "nic", "mac": "fa:16:3e:00:00:01", "bus": "pci", "address": "0000:00:03.0", "tags": ["nic1"],
        ]
        let disk: JSONValue = ["type": "disk", "serial": "s", "bus": "scsi", "address": "none", "tags": ["db"]]
        #expect(try Self.json(files, "openstack/2016-06-30/meta_data.json")["devices"] == [.object(nic), disk])
        let latest = try #require(try Self.json(files, "openstack/latest/meta_data.json")["devices"]?.arrayValue)
        #expect(latest[0] == .object(nic.merging(["vlan": 7, "vf_trusted": false]) { $1 }))
        #expect(latest[1] == disk)
        #expect(latest[2] == ["type": "nic", "mac": "m", "vf_trusted": false, "bus": "none", "address": "none"])
        #expect(latest.count == 3)
    }

    @Test func pinnedProcessorsAreListedInOrder() async throws {
        func cell(_ cpus: JSONValue) -> JSONValue {
            VersionedObject(name: "InstanceNUMACell", version: "1.6", fields: ["pcpuset": cpus]).primitive
        }
        let topology = VersionedObject(
            name: "InstanceNUMATopology", version: "1.3", fields: ["cells": [cell([3, 1]), cell([0])]]
        ).primitive
        let files = try await drive(Self.instance(["numa_topology": topology]))
        #expect(try Self.json(files, "openstack/latest/meta_data.json")["dedicated_cpus"] == [0, 1, 3])
    }

    // MARK: Vendor data

    @Test func vendorDataIsTheOperators() async throws {
        let files = try await drive(Self.instance(), options: .init(staticVendorData: ["cloud-init": "#cloud-config"]))
        #expect(try Self.json(files, "openstack/latest/vendor_data.json") == ["cloud-init": "#cloud-config"])
        #expect(try Self.json(files, "openstack/latest/vendor_data2.json") == ["static": ["cloud-init": "#cloud-config"]])
    }

    // MARK: EC2

    @Test func ec2sMetadataHasItsKeys() async throws {
        var volume = BlockDeviceMapping(in: .zed)
        for (field, value) in ["destination_type": "volume", "device_name": "/dev/vdd"] { volume.set(field, to: value) }
        var swap = BlockDeviceMapping(in: .zed)
        for (field, value) in [
            "destination_type": "local", "source_type": "blank", "guest_format": "swap", "device_name": "/dev/vdc",
        ] { swap.set(field, to: value) }
        var ephemeral = swap
        ephemeral.set("guest_format", to: "ext4")
        ephemeral.set("device_name", to: "/dev/vdb")
        let instance = Self.instance([
            "ec2_ids": Self.ec2(["kernel_id": "aki-1"]), "key_name": "mykey", "key_data": "ssh-ed25519 AAAA",
            "keypairs": Self.keyPairs(),
        ])
        let info = try RecordedExchange("create").after.map { VIF($0) }
        let files = try await drive(instance, info, conductor: Self.conductor([volume, swap, ephemeral]))
        let data = try Self.json(files, "ec2/latest/meta-data.json")
        #expect(
            data == [
                "ami-id": "ami-00000001", "ami-launch-index": 0, "ami-manifest-path": "FIXME", "instance-id": "i-00000007",
                "hostname": "rec-1.novalocal", "local-ipv4": "10.99.0.42", "reservation-id": "r-1", "security-groups": [],
                "public-keys": ["0": ["_name": "0=mykey", "openssh-key": "ssh-ed25519 AAAA"]],
                "local-hostname": "rec-1.novalocal", "public-hostname": "rec-1.novalocal", "public-ipv4": "",
                "instance-type": "", "kernel-id": "aki-1", "placement": ["availability-zone": "nova"],
                "instance-action": "none",
                "block-device-mapping": [
                    "ami": "vda", "root": "/dev/vda", "swap": "/dev/vdc", "ephemeral0": "/dev/vdb", "ebs0": "/dev/vdd",
                ],
            ])
        #expect(files["ec2/2009-04-04/meta-data.json"] == files["ec2/latest/meta-data.json"])
    }

    @Test func securityGroupsAreNamed() async throws {
        let neutron = NeutronTwin { request in
            if request.line.contains("/ports?") { return .init(json: ["ports": [["security_groups": ["g1", "g2"]]]]) }
            return .init(json: ["security_groups": [["id": "g2", "name": ""], ["id": "g1", "name": "web"]]])
        }
        let files = try await drive(Self.instance(), neutron: neutron)
        #expect(try Self.json(files, "ec2/latest/meta-data.json")["security-groups"] == ["web", "g2"])
        #expect(neutron.lines.last == "GET /v2.0/security-groups?id=g1&id=g2&fields=id&fields=name")
    }

    // MARK: What the conductor is asked for

    @Test func factsThatAreThereAreNotAskedFor() async throws {
        let conductor = Self.conductor()
        _ = try await drive(Self.instance(["key_name": "mykey", "keypairs": Self.keyPairs()]), conductor: conductor)
        #expect(conductor.names == ["BlockDeviceMappingList.get_by_instance_uuid"])
    }

    @Test func factsThatWereLeftOutAreAskedFor() async throws {
        var bare = Self.instance(["key_name": "mykey"])
        bare.object.unset("ec2_ids")
        let conductor = Self.conductor()
        let full = Self.instance(["keypairs": Self.keyPairs()])
        conductor.state.withLock {
            $0.answers["EC2Ids.get_by_instance"] = Self.ec2()
            $0.answers["Instance.get_by_uuid"] = full.primitive
        }
        let files = try await drive(bare, conductor: conductor)
        #expect(
            conductor.names == [
                "EC2Ids.get_by_instance", "Instance.get_by_uuid", "BlockDeviceMappingList.get_by_instance_uuid",
            ])
        #expect(try Self.json(files, "ec2/latest/meta-data.json")["instance-id"] == "i-00000007")
        #expect(
            try Self.json(files, "openstack/latest/meta_data.json")["public_keys"] == ["mykey": "ssh-ed25519 AAAA u@h"])
    }
}
