import DiskImage
import Foundation
import Testing

/// Options of `qemu-img create`, one combination a row.
private let options: [String] = [
    "compat=0.10",
    "compat=1.1",
    "compat=1.1,cluster_size=512",
    "compat=0.10,cluster_size=4096",
    "compat=1.1,cluster_size=2M",
    "compat=1.1,refcount_bits=1",
    "compat=1.1,refcount_bits=2,cluster_size=1024",
    "compat=1.1,refcount_bits=4",
    "compat=1.1,refcount_bits=8,cluster_size=8192",
    "compat=1.1,refcount_bits=16,lazy_refcounts=on",
    "compat=1.1,refcount_bits=32,preallocation=metadata",
    "compat=1.1,refcount_bits=64,cluster_size=512,preallocation=metadata",
    "compat=1.1,preallocation=falloc",
    "compat=1.1,preallocation=full,cluster_size=32768",
    "compat=0.10,preallocation=metadata",
]

@Suite(.enabled(if: Tools.arePresent)) struct QCOW2ReadingTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    /// What the other implementation reads from an image.
    private func reference(_ path: String, format: String = "qcow2") throws -> [UInt8] {
        let raw = directory["reference.raw"]
        try Tools.makeImage("convert", "-f", format, "-O", "raw", path, raw)
        return Array(try Data(contentsOf: URL(fileURLWithPath: raw)))
    }

    @Test(arguments: options) func imageOfTheOtherImplementationReadsTheSame(options: String) throws {
        let path = directory["a.qcow2"]
        try Tools.makeImage("create", "-q", "-f", "qcow2", "-o", options, path, "5M")
        let zeroes = options.contains("0.10") ? [] : ["write -z 1M 64k", "write -z -u 1200k 64k"]
        try Tools.write(
            path,
            ["write -P 0x11 0 3k", "write -P 0x22 100k 200k", "write -P 0x33 4M 1000k", "write -P 0x44 5242368 512"]
                + zeroes
                + ["discard 128k 64k"])
        let image = try QCOW2Image(file: openFile(path, readOnly: true), isReadOnly: true, backing: nil)
        #expect(image.byteCount == 5 << 20)
        #expect(try image.contents() == reference(path))
        let report = try QCOW2Check(file: openFile(path, readOnly: true)).check()
        #expect(report.isClean, "\(report.problems)")
    }

    @Test(
        arguments: ["zlib", "zstd"], ["cluster_size=65536", "cluster_size=512", "cluster_size=2M", "cluster_size=4k"])
    func compressedImageReadsTheSame(compression: String, clusterSize: String) throws {
        let raw = directory["source.raw"]
        var numbers = SeededNumbers(seed: 7)
        // What compresses well, what compresses somewhat, and what does not.
        var bytes = pattern(byteCount: 1 << 20, seed: 3)
        bytes += (0..<(64 << 10)).map { _ in UInt8.random(in: 0...255, using: &numbers) }
        bytes += (0..<(64 << 10)).map { _ in UInt8.random(in: 97...122, using: &numbers) }
        bytes += [UInt8](repeating: 0, count: 128 << 10)
        try Data(bytes).write(to: URL(fileURLWithPath: raw))
        let path = directory["c.qcow2"]
        try Tools.makeImage(
            "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "\(clusterSize),compression_type=\(compression)", raw,
            path)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        #expect(try image.contents() == bytes)
        // Over a part of a compressed cluster, then over the rest.
        let patch = pattern(byteCount: 10_240, seed: 99)
        try image.write(patch, at: 5120)
        try image.close()
        bytes.replaceSubrange(5120..<(5120 + patch.count), with: patch)
        #expect(try image.contents() == bytes)
        #expect(try reference(path) == bytes)
        #expect(try Tools.check(path).status == 0)
    }

    @Test func overlayReadsItsBackingBehindAndWithinItsOwnClusters() throws {
        let base = directory["base.qcow2"]
        let path = directory["top.qcow2"]
        try Tools.makeImage("create", "-q", "-f", "qcow2", base, "3M")
        try Tools.write(base, ["write -P 0x77 0 3M"])
        try Tools.makeImage("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path, "5M")
        try Tools.write(path, ["write -P 0x11 1000k 3k", "write -z 2M 128k"])
        let backing = try QCOW2Image(file: openFile(base, readOnly: true), isReadOnly: true, backing: nil)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: backing)
        #expect(image.header.backingFormat == "qcow2")
        #expect(try image.contents() == reference(path))
        try image.write(pattern(byteCount: 4096, seed: 1), at: (3 << 20) - 2048)
        try image.write(pattern(byteCount: 512, seed: 2), at: 2 << 20)
        try image.close()
        #expect(try image.contents() == reference(path))
        #expect(try Tools.check(path).status == 0)
    }

    @Test func internalSnapshotStaysAsItWasWhileTheDiskIsWritten() throws {
        let path = directory["snapshot.qcow2"]
        try Tools.makeImage("create", "-q", "-f", "qcow2", path, "2M")
        try Tools.write(path, ["write -P 0x55 0 1M"])
        try Tools.makeImage("snapshot", "-c", "before", path)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        try image.write([UInt8](repeating: 0x66, count: 100_000), at: 30_000)
        try image.carryOut(BlockRequest(.discard, offset: 512 << 10, byteCount: 128 << 10, tag: 0))
        try image.close()
        let written = try image.contents()
        #expect(written[30_000] == 0x66 && written[29_999] == 0x55 && written[600 << 10] == 0)
        #expect(try reference(path) == written)
        #expect(try Tools.check(path).status == 0)
        try Tools.makeImage("snapshot", "-a", "before", path)
        let before = try reference(path)
        #expect(before == [UInt8](repeating: 0x55, count: 1 << 20) + [UInt8](repeating: 0, count: 1 << 20))
    }

    @Test func imageThatWasLeftDirtyIsRepairedBeforeItIsWritten() throws {
        let path = directory["dirty.qcow2"]
        try Tools.makeImage("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "2M")
        // The process goes away by abort, with refcounts that were never written.
        _ = try Tools.run(
            Tools.inputOutput, ["-f", "qcow2", "-c", "write -P 0x21 0 512k", "-c", "flush", "-c", "abort", path])
        let before = try QCOW2Header(readFrom: openFile(path))
        #expect(before.incompatibleFeatures == .dirty)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        try image.write([UInt8](repeating: 0x22, count: 4096), at: 1 << 20)
        try image.close()
        let written = try image.contents()
        #expect(written[511 << 10] == 0x21 && written[1 << 20] == 0x22)
        #expect(try Tools.check(path).status == 0)
    }

    @Test(arguments: [
        ("data_file=%.data,data_file_raw=on", "external data file"), ("extended_l2=on", "extended L2 entries"),
    ])
    func featureThatIsNotUnderstoodIsRefusedByName(option: String, name: String) throws {
        let path = directory["feature.qcow2"]
        try Tools.makeImage(
            "create", "-q", "-f", "qcow2", "-o", option.replacingOccurrences(of: "%", with: path), path, "2M")
        let error = #expect(throws: ImageError.self) { try QCOW2Header(readFrom: openFile(path)) }
        #expect(error?.code == .unsupported && error?.reason == name)
    }

    @Test func encryptedImageIsRefused() throws {
        let path = directory["luks.qcow2"]
        try Tools.makeImage(
            "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc123", "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", path, "1M")
        let error = #expect(throws: ImageError.self) { try QCOW2Header(readFrom: openFile(path)) }
        #expect(error?.code == .unsupported)
    }

    @Test func backingThatWasNotHandedInIsRefusedWithItsName() throws {
        let base = directory["base.raw"]
        let path = directory["top.qcow2"]
        try Tools.makeImage("create", "-q", "-f", "raw", base, "1M")
        try Tools.makeImage("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path)
        let error = #expect(throws: ImageError.self) {
            try QCOW2Image(file: openFile(path), isReadOnly: true, backing: nil)
        }
        #expect(error?.code == .refused && error?.reason.contains("base.raw") == true)
        #expect(try QCOW2Image(file: openFile(path), isReadOnly: true, backing: openRaw(base)).byteCount == 1 << 20)
    }

    @Test func bitmapBecomesInvalidWithTheFirstWrite() throws {
        let path = directory["bitmap.qcow2"]
        try Tools.makeImage("create", "-q", "-f", "qcow2", path, "1M")
        try Tools.makeImage("bitmap", "--add", path, "changes")
        #expect(try QCOW2Check(file: openFile(path)).check().isClean)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        #expect(image.header.autoclearFeatures == 1)
        try image.write([1, 2, 3, 4] + [UInt8](repeating: 0, count: 508), at: 0)
        try image.close()
        #expect(try QCOW2Header(readFrom: openFile(path)).autoclearFeatures == 0)
        // The bitmap's clusters have no user now: leaks, which a repair gives back.
        #expect(try QCOW2Check(file: openFile(path)).repair().isSafe)
        #expect(try Tools.check(path).status == 0)
    }
}
