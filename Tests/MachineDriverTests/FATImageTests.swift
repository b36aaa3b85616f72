import Foundation
import Glibc
import Testing

@testable import MachineDriver

private func has(_ program: String) -> Bool { ["/usr/bin/", "/usr/sbin/", "/sbin/"].contains { access($0 + program, X_OK) == 0 } }

/// The config drive as FAT16, as other programs read it.
struct FATImageTests {
    private let content: [String: [UInt8]] = [
        "openstack/latest/meta_data.json": Array("{\"uuid\": \"0d3a\"}".utf8),
        "openstack/latest/user_data": [UInt8](repeating: 0x41, count: 5000), "openstack/latest/vendor_data2.json": [],
        "openstack/content/0000": (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }, "ec2/latest/meta-data.json": Array("{\"ami\": 1}".utf8),
        // A long name that fills its parts, and one of a character more.
        "thirteen.char": [1], "fourteen.chars": [2],
    ]

    private func build(_ content: [String: [UInt8]]) throws -> [UInt8] {
        try FATImage.build(content, volumeID: "config-2", secondsSinceEpoch: 1_700_000_000)
    }

    @Test func itIsAFAT16OfNovasSizeWithTheLabelThatGuestsLookFor() throws {
        let image = try build(content)
        #expect(try build(content) == image && image.count < FATImage.byteCount && image.count % 512 == 0)
        #expect(image[510] == 0x55 && image[511] == 0xAA)
        // BS_VolLab and BS_FilSysType of FAT16.
        #expect(image[43..<54].elementsEqual("config-2   ".utf8) && image[54..<62].elementsEqual("FAT16   ".utf8))
        #expect(Array(image[32..<36]) == [0, 0, 2, 0], "131072 sectors")
    }

    @Test(.enabled(if: has("mtype") && has("fsck.vfat"), "needs mtools and dosfstools"))
    func otherProgramsReadEveryFileAndFindNoFault() throws {
        let path = "/tmp/apus-fat-\(UUID().uuidString)"
        defer { unlink(path) }
        var image = try build(content)
        image += [UInt8](repeating: 0, count: FATImage.byteCount - image.count)
        try Data(image).write(to: URL(fileURLWithPath: path))
        func run(_ arguments: [String]) throws -> (status: Int32, output: Data) {
            let process = Process(), output = Pipe()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"]
            (process.arguments, process.standardOutput, process.standardError) = (arguments, output, output)
            try process.run()
            let data = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return (process.terminationStatus, data)
        }
        let check = try run(["fsck.vfat", "-n", "-v", path])
        #expect(check.status == 0, "\(String(decoding: check.output, as: UTF8.self))")
        for (name, bytes) in content {
            let read = try run(["mtype", "-i", path, "::" + name])
            #expect(read.status == 0 && Array(read.output) == bytes, "\(name): \(read.output.count) bytes")
        }
        let names = try run(["mdir", "-b", "-/", "-i", path, "::"])
        let listed = Set(String(decoding: names.output, as: UTF8.self).split(separator: "\n").map { String($0.dropFirst(3)) }.filter { !$0.hasSuffix("/") })
        #expect(listed == Set(content.keys))
    }

    @Test func whatDoesNotFitIsAnErrorInWords() {
        #expect(throws: ConfigDriveError.self) { try build(["big": [UInt8](repeating: 1, count: FATImage.byteCount - 4096)]) }
        let many = Dictionary(uniqueKeysWithValues: (0..<300).map { ("file\($0)", [UInt8(1)]) })
        #expect(throws: ConfigDriveError(path: "", reason: "too many files in its root")) { try build(many) }
    }
}
