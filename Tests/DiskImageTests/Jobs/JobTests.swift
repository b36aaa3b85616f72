import DiskImage
import Foundation
import Testing

@Suite struct StreamTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    @Test func streamedImageNeedsItsBackingNoMore() throws {
        let base = directory["base.raw"]
        let path = directory["top.qcow2"]
        try Data(pattern(byteCount: 3_000_320, seed: 1)).write(to: URL(fileURLWithPath: base))
        var creation = QCOW2Creation(byteCount: 4 << 20)
        creation.clusterBits = 12
        creation.backing = (base, "raw")
        try creation.create(on: openFile(path))
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: openRaw(base))
        try image.write(pattern(byteCount: 10_240, seed: 2), at: 70_144)
        try image.carryOut(BlockRequest(.writeZeroes(mayUnmap: true), offset: 1 << 20, byteCount: 65536, tag: 0))
        var expected = try image.contents()
        #expect(throws: ImageError.self) { try image.forgetBacking() }
        var position: UInt64 = 0
        var steps = 0
        while let next = try image.stream(from: position, limit: 300_000) {
            #expect(next > position)
            position = next
            steps += 1
            // A guest that writes ahead of the job and behind it.
            let place = [500_224, 2_500_096, 4096][steps % 3]
            let bytes = pattern(byteCount: 1024, seed: UInt64(steps) + 10)
            try image.write(bytes, at: UInt64(place))
            expected.replaceSubrange(place..<(place + 1024), with: bytes)
        }
        #expect(steps >= 9)
        try image.forgetBacking()
        try image.close()
        let alone = try QCOW2Image(file: openFile(path, readOnly: true), isReadOnly: true, backing: nil)
        #expect(try alone.contents() == expected)
        if Tools.arePresent {
            let (status, output) = try Tools.check(path)
            #expect(status == 0, "\(output)")
        }
    }
}

@Suite struct MirrorTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    @Test func targetIsTheSameAfterAGuestWroteDuringTheCopy() throws {
        ftruncateFile(directory["source.raw"], 10 << 20 + 512)
        let source = try openRaw(directory["source.raw"], readOnly: false)
        try source.write(pattern(byteCount: 3 << 20, seed: 1), at: 1 << 20)
        try QCOW2Creation(byteCount: 10 << 20 + 512).create(on: openFile(directory["target.qcow2"]))
        let target = try QCOW2Image(file: openFile(directory["target.qcow2"]), isReadOnly: false, backing: nil)
        let mirror = try MirrorImage(of: source, to: target)
        #expect(mirror.remainingByteCount == 11 << 20)
        var numbers = SeededNumbers(seed: 4)
        for round in 0..<20 {
            #expect(try mirror.step())
            let place = UInt64.random(in: 0..<20_000, using: &numbers) * 512
            if round % 4 == 3 {
                try mirror.carryOut(
                    BlockRequest(.writeZeroes(mayUnmap: true), offset: place, byteCount: 200 << 9, tag: 0))
            } else {
                try mirror.write(pattern(byteCount: 100 << 9, seed: UInt64(round) + 9), at: place)
            }
        }
        #expect(mirror.remainingByteCount > 0)
        try mirror.finish()
        #expect(mirror.remainingByteCount == 0)
        #expect(try target.contents() == source.contents())
        try target.close()
    }

    @Test func smallerTargetIsRefused() throws {
        ftruncateFile(directory["a"], 1 << 20)
        ftruncateFile(directory["b"], 1 << 19)
        let (a, b) = (try openRaw(directory["a"]), try openRaw(directory["b"], readOnly: false))
        #expect(throws: ImageError.self) { try MirrorImage(of: a, to: b) }
    }
}

@Suite struct ImageLockTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    private func lock(_ file: DescriptorFile, forWriting: Bool) throws {
        try ImageLock.take(on: file.rawDescriptor, forWriting: forWriting, named: file.name)
    }

    @Test func writersExcludeEveryoneAndReadersOnlyWriters() throws {
        ftruncateFile(directory["a"], 4096)
        let writer = try directory.open("a")
        try lock(writer, forWriting: true)
        let error = #expect(throws: ImageError.self) { try lock(directory.open("a"), forWriting: true) }
        #expect(error?.code == .refused)
        #expect(throws: ImageError.self) { try lock(directory.open("a", readOnly: true), forWriting: false) }
        ImageLock.release(writer.rawDescriptor, named: "a")
        let reader = try directory.open("a", readOnly: true)
        try lock(reader, forWriting: false)
        try lock(directory.open("a", readOnly: true), forWriting: false)
        #expect(throws: ImageError.self) { try lock(writer, forWriting: true) }
    }

    @Test(.enabled(if: Tools.arePresent)) func theOtherImplementationRefusesAnImageInUseHere() throws {
        let path = directory["a.qcow2"]
        try QCOW2Creation(byteCount: 1 << 20).create(on: openFile(path))
        do {
            let file = try openFile(path)
            try lock(file, forWriting: true)
            let (status, output) = try Tools.run(Tools.inputOutput, ["-f", "qcow2", "-c", "write 0 512", path])
            #expect(status != 0 && output.contains("lock"), "\(output)")
            #expect(try Tools.run(Tools.image, ["info", path]).status != 0)
        }
        let reader = try openFile(path, readOnly: true)
        try lock(reader, forWriting: false)
        #expect(try Tools.run(Tools.image, ["info", path]).status == 0)
        #expect(try Tools.run(Tools.inputOutput, ["-f", "qcow2", "-c", "write 0 512", path]).status != 0)
    }

    @Test(.enabled(if: Tools.arePresent)) func imageInUseByTheOtherImplementationIsRefusedHere() throws {
        let path = directory["a.qcow2"]
        try QCOW2Creation(byteCount: 1 << 20).create(on: openFile(path))
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(Tools.inputOutput))
        process.arguments = ["-f", "qcow2", path]
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = output
        process.standardError = output
        try process.run()
        // A command's answer says that the image is open.
        input.fileHandleForWriting.write(Data("length\n".utf8))
        var answer = ""
        while !answer.contains("MiB") && !answer.contains("1048576") {
            let data = output.fileHandleForReading.availableData
            if data.isEmpty { break }
            answer += String(decoding: data, as: UTF8.self)
        }
        #expect(throws: ImageError.self) { try lock(openFile(path), forWriting: true) }
        #expect(throws: ImageError.self) { try lock(openFile(path, readOnly: true), forWriting: false) }
        try input.fileHandleForWriting.close()
        process.waitUntilExit()
        try lock(openFile(path), forWriting: true)
    }
}
