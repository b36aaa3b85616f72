import ComputeDriver
import Foundation
import Glibc
import JSON
import Testing

@testable import MachineDriver

struct StorageTests {
    private let scratch: Scratch
    init() throws { scratch = try Scratch() }

    private func blocks(_ path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_blocks) : -1
    }

    @Test func copyKeepsHolesAndGrows() throws {
        let source = scratch.path + "/source", target = scratch.path + "/target"
        let file = try Descriptor(opening: source, O_RDWR | O_CREAT)
        for offset in [0, 40 << 20, 63 << 20] { #expect(pwrite(file.rawValue, "here", 4, off_t(offset)) == 4) }
        #expect(ftruncate(file.rawValue, 64 << 20) == 0)
        try DiskFiles.copy(file, named: "source", to: target, byteCount: 100 << 20, isCancelled: { false })
        #expect(blocks(target) < 1024, "\(blocks(target)) blocks for 12 bytes")
        let copy = try Data(contentsOf: URL(fileURLWithPath: target), options: .alwaysMapped)
        #expect(copy.count == 100 << 20)
        for offset in [0, 40 << 20, 63 << 20] { #expect(copy[offset..<(offset + 4)] == Data("here".utf8)) }
        #expect(copy[4..<4096].allSatisfy { $0 == 0 })
        #expect(throws: HostFailure.self) {
            try DiskFiles.copy(file, named: "source", to: target, byteCount: 0, isCancelled: { false })
        }
        #expect(
            try Files.byteCount(of: Descriptor(opening: target, O_RDONLY), named: target) == 100 << 20,
            "an existing file is kept")
    }

    @Test func cancelledCopyLeavesNothing() throws {
        // On a file system that shares blocks nothing is left to cancel: the copy is then complete.
        let file = try Descriptor(opening: "/dev/shm/apus-copy-\(getpid())", O_RDWR | O_CREAT)
        defer { unlink("/dev/shm/apus-copy-\(getpid())") }
        #expect(pwrite(file.rawValue, "data", 4, 0) == 4)
        #expect(throws: CancellationError.self) {
            try DiskFiles.copy(file, named: "shm", to: scratch.path + "/target", byteCount: 0, isCancelled: { true })
        }
        #expect(scratch.names() == [])
    }

    private static let heads: [([UInt8], ImageFormat)] = [
        ([0x51, 0x46, 0x49, 0xFB], .qcow2), (Array("KDMV".utf8), .vmdk), (Array("# Disk DescriptorFile".utf8), .vmdk),
        (Array("conectix".utf8), .vhd), (Array("vhdxfile".utf8), .vhdx), (Array("QED\0".utf8), .qed), ([], .raw),
        (Array("LUKS".utf8) + [0xBA, 0xBE], .luks),
        ([UInt8](repeating: 0, count: 64) + [0x7F, 0x10, 0xDA, 0xBE], .vdi),
        (Array("QFI".utf8), .raw), ([UInt8](repeating: 0, count: 510) + [0x55, 0xAA], .raw),
    ]
    @Test(arguments: heads)
    func formatsAreToldByTheirContent(head: [UInt8], format: ImageFormat) {
        #expect(ImageFormat.detect(head) == format)
    }

    private let machine = SavedMachine(
        uuid: "0d3a8b6a-1111-4222-8333-444455556666", name: "instance-1", memoryMiB: 64, vcpus: 2, sockets: 1, cores: 2,
        threads: 1,
        commandLine: "a \"b\"", hasRAMDisk: true, hasEntropy: false,
        disks: [SavedMachine.Disk(id: "virtio-disk0", file: "disk", isReadOnly: false)], queueCount: 2,
        interfaces: [
            InterfaceRequest(
                portID: "p", macAddress: "fa:16:3e:00:00:01", type: "bridge", bridge: "brq1", deviceName: "tap1",
                mtu: 1450,
                details: ["port_filter": true]),
            InterfaceRequest(
                portID: "q", macAddress: "m", type: "tap", bridge: nil, deviceName: "tap2", mtu: nil, details: [:]),
        ])

    @Test func descriptionIsReadAsItWasWritten() throws {
        let text = machine.json.serializedBytes()
        #expect(SavedMachine(json: try JSONValue.parse(text)) == machine)
    }

    @Test func damagedDescriptionsAreErrorsInWords() throws {
        guard case .object(let members) = machine.json else { return }
        // What the first version did not write may be missing.
        for key in members.keys where !["firmware", "machineType", "bootSuffix", "imageIDs", "diskLimits", "processor", "devices", "nodes", "hugePageKiB"].contains(key) {
            #expect(SavedMachine(json: .object(members.filter { $0.key != key })) == nil, "without \(key)")
        }
        var escaping = members
        escaping["disks"] = [["id": "x", "file": "../../etc/shadow", "readOnly": false]]
        #expect(SavedMachine(json: .object(escaping)) == nil)
        let directory = InstanceDirectory(instancesPath: scratch.path, uuid: "u")
        try Files.makeDirectories(directory.path)
        try Files.write(directory.file("machine.json"), Array("{".utf8))
        #expect(throws: HostFailure.self) { try directory.machine() }
        #expect(InstanceDirectory(instancesPath: scratch.path, uuid: "none").exists == false)
    }

    @Test func directoryIsWholeOrAbsent() throws {
        let directory = InstanceDirectory(instancesPath: scratch.path, uuid: "u")
        let draft = try directory.prepare()
        try draft.save(machine)
        #expect(!directory.exists)
        try directory.publish(draft)
        #expect(directory.exists)
        #expect(try directory.machine() == machine)
        let identity = ProcessIdentity(pid: 5, startTime: 77)
        try directory.save(identity)
        #expect(try directory.process() == identity)
        try directory.save(nil as ProcessIdentity?)
        #expect(try directory.process() == nil)
        _ = try InstanceDirectory(instancesPath: scratch.path, uuid: "v").prepare()
        try InstanceDirectory.removeDrafts(in: scratch.path)
        #expect(scratch.names() == ["u"])
        try directory.remove()
        try directory.remove()
        #expect(scratch.names() == [])
    }

    @Test(arguments: ["", "5", "x 7", "-1 7", "5 7 9", "0 1", "99999999999 1"])
    func damagedPidFilesNameNoProcess(text: String) { #expect(ProcessIdentity(text: text) == nil) }

    @Test func processIsKnownByPidAndStartTime() throws {
        let own = try #require(try ProcessIdentity(pid: getpid()))
        #expect(try MonitorProcess.find(own) != nil)
        #expect(try MonitorProcess.find(ProcessIdentity(pid: own.pid, startTime: own.startTime + 1)) == nil)
        #expect(try MonitorProcess.find(ProcessIdentity(pid: 0x3FFFFF, startTime: 1)) == nil)
    }

    @Test func monitorLogIsCutToItsEnd() throws {
        let directory = InstanceDirectory(instancesPath: scratch.path, uuid: "u")
        try Files.makeDirectories(directory.path)
        try Files.write(directory.monitorLog, [UInt8](repeating: 1, count: 5000) + Array("the end".utf8))
        _ = try directory.openMonitorLog(limit: 4000)
        #expect(try #require(try Files.read(directory.monitorLog)).count == 1000)
        #expect(directory.monitorLogTail(byteCount: 7) == "the end")
    }

    @Test(arguments: [
        (ENOSPC, "no space left"), (EDQUOT, "quota"), (EROFS, "read-only"), (EIO, "input/output"), (EACCES, "operator"),
    ])
    func hostFailuresSpeakToTenantAndOperatorApart(errno: CInt, words: String) {
        let error = DriverError(
            HostFailure("write", "/var/lib/nova/secret", errno: errno), while: "create the disk of instance x")
        #expect(error.tenantMessage.contains(words) && !error.tenantMessage.contains("/var"), "\(error.tenantMessage)")
        #expect(
            error.operatorMessage.contains("/var/lib/nova/secret") && error.operatorMessage.contains("errno \(errno)"))
        #expect(error.fault == .host)
    }
}
