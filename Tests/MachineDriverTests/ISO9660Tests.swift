import Foundation
import Glibc
import Testing

@testable import MachineDriver

private func has(_ program: String) -> Bool {
    access("/usr/bin/\(program)", X_OK) == 0 || access("/usr/sbin/\(program)", X_OK) == 0
}

struct ISO9660Tests {
    private let content: [String: [UInt8]] = [
        "openstack/latest/meta_data.json": Array("{\"uuid\": \"0d3a\"}".utf8),
        "openstack/latest/user_data": [UInt8](repeating: 0x41, count: 5000),
        "openstack/latest/vendor_data.json": Array("{}".utf8), "openstack/latest/vendor_data2.json": [],
        "openstack/2012-08-10/meta_data.json": Array("old".utf8),
        "openstack/2013-04-04/meta_data.json": Array("newer".utf8),
        "openstack/content/0000": Array("injected".utf8), "ec2/latest/meta-data.json": Array("{\"ami\": 1}".utf8),
        "a name with späces and ünicode.tar.gz": Array("name".utf8),
    ]

    private func image(_ content: [String: [UInt8]]) throws -> [UInt8] {
        try ISO9660Image.build(content, volumeID: "config-2", secondsSinceEpoch: 1_700_000_000)
    }

    private func written(_ content: [String: [UInt8]]) throws -> (Scratch, String) {
        let scratch = try Scratch()
        let path = scratch.path + "/image.iso"
        try Data(image(content)).write(to: URL(fileURLWithPath: path))
        return (scratch, path)
    }

    private func run(_ arguments: [String]) throws -> (status: Int32, output: Data, text: String) {
        let process = Process(), output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"]
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = Pipe()
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, data, String(decoding: data, as: UTF8.self))
    }

    @Test func sameContentIsTheSameImageInWholeSectors() throws {
        let image = try image(content)
        #expect(try self.image(content) == image)
        #expect(image.count % 2048 == 0)
        #expect(image[32769..<32774].elementsEqual("CD001".utf8) && image[32808..<32816].elementsEqual("config-2".utf8))
    }

    @Test(.enabled(if: has("isoinfo"), "needs isoinfo"))
    func isoinfoReadsEveryFileByRockRidgeAndJoliet() throws {
        let (scratch, path) = try written(content)
        defer { withExtendedLifetime(scratch) {} }
        for option in ["-R", "-J"] {
            // Joliet's names bear their version, as other writers have it. isoinfo prints them in a one-byte character set
            // of its choice: only ASCII can be compared.
            for (name, bytes) in content where option == "-R" || name.allSatisfy(\.isASCII) {
                let read = try run(["isoinfo", option, "-i", path, "-x", "/" + name + (option == "-J" ? ";1" : "")])
                #expect(read.status == 0 && read.output == Data(bytes), "\(option) \(name): \(read.text.prefix(100))")
            }
            let list = try run(["isoinfo", option, "-f", "-i", path]).text.split(separator: "\n").map(String.init)
            let names = content.keys.filter { option == "-R" || $0.allSatisfy(\.isASCII) }
            #expect(
                Set(list).isSuperset(of: names.map { "/" + $0 + (option == "-J" ? ";1" : "") }), "\(option): \(list)")
        }
        let description = try run(["isoinfo", "-d", "-i", path]).text
        #expect(
            description.contains("Volume id: config-2") && description.contains("Joliet")
                && description.contains("Rock Ridge"), "\(description)")
    }

    @Test(.enabled(if: has("xorriso"), "needs xorriso"))
    func xorrisoExtractsTheTree() throws {
        let (scratch, path) = try written(content)
        let target = scratch.path + "/out"
        let read = try run(["xorriso", "-osirrox", "on", "-indev", path, "-extract", "/", target])
        #expect(read.status == 0)
        for (name, bytes) in content {
            #expect(try Data(contentsOf: URL(fileURLWithPath: target + "/" + name)) == Data(bytes), "\(name)")
        }
        _ = try run(["chmod", "-R", "u+w", target])
    }

    @Test(.enabled(if: has("blkid"), "needs blkid"))
    func blkidFindsTheLabel() throws {
        let (scratch, path) = try written(content)
        defer { withExtendedLifetime(scratch) {} }
        let found = try run(["blkid", "-p", "-o", "export", path]).text
        #expect(found.contains("LABEL=config-2") && found.contains("TYPE=iso9660"), "\(found)")
    }

    @Test(.enabled(if: has("isoinfo"), "needs isoinfo"))
    func directoriesOfManyFilesAndOfNoneAreRead() throws {
        var many: [String: [UInt8]] = [:]
        for number in 0..<300 { many["openstack/content/a_rather_long_name_\(number)"] = Array("\(number)".utf8) }
        let (scratch, path) = try written(many)
        defer { withExtendedLifetime(scratch) {} }
        for number in [0, 7, 299] {
            for option in ["-R", "-J"] {
                let read = try run([
                    "isoinfo", option, "-i", path, "-x",
                    "/openstack/content/a_rather_long_name_\(number)" + (option == "-J" ? ";1" : ""),
                ])
                #expect(read.text == "\(number)", "\(option) \(number)")
            }
        }
        let (other, empty) = try written([:])
        #expect(try run(["isoinfo", "-f", "-i", empty]).status == 0)
        withExtendedLifetime(other) {}
    }

    @Test(arguments: [
        "", "/a", "a//b", "../x", "a/./b", "a/", "a:b", "a\u{0}b", "1/2/3/4/5/6/7/8/9",
        String(repeating: "x", count: 65), "\u{1F600}",
    ])
    func pathsThatNoImageCanHoldAreRefused(path: String) {
        #expect(throws: ConfigDriveError.self) { try image([path: [1]]) }
    }

    @Test func fileThatIsADirectoryTooIsRefused() {
        #expect(throws: ConfigDriveError.self) { try image(["a": [1], "a/b": [2]]) }
        #expect(throws: ConfigDriveError.self) {
            try image(["x": [UInt8](repeating: 0, count: FileTree.byteLimit + 1)])
        }
    }
}
