import ComputeDriver
import Foundation
import Glibc
import Testing

@testable import MachineDriver

/// What is on the disks that Nova makes empty: read from the disk, as a guest's kernel would.
@Suite struct DiskFormattingTests {
    private let path = "/tmp/apus-formatting-\(UUID().uuidString)"

    private func bytes(_ offset: Int, _ count: Int) throws -> [UInt8] {
        let handle = try FileHandle(forReadingFrom: URL(filePath: path))
        try handle.seek(toOffset: UInt64(offset))
        return Array(try handle.read(upToCount: count) ?? Data())
    }

    @Test func theFileSystemIsNovasChoice() {
        var formatting = DiskFormatting()
        #expect(formatting.fileSystem(osType: "linux") == "ext4" && formatting.fileSystem(osType: "windows") == "ntfs")
        #expect(formatting.fileSystem(osType: nil) == "vfat")
        formatting.defaultFileSystem = "xfs"
        #expect(formatting.fileSystem(osType: "linux") == "ext4" && formatting.fileSystem(osType: "freebsd") == "xfs")
        #expect(DiskFormatting.command("ntfs", label: "a") == ["mkfs.ntfs", "-F", "--fast", "--quiet", "--label", "a"])
        #expect(DiskFormatting.command("vfat", label: "a") == ["mkfs.vfat", "-n", "a"])
    }

    @Test func anEphemeralDiskHasAFileSystemWithItsLabelAndStaysSparse() throws {
        defer { unlink(path) }
        try EmptyDisk(file: "disk.eph0", byteCount: 1 << 30, purpose: .ephemeral(label: "ephemeral0", osType: "linux")).make(at: path, DiskFormatting())
        // The superblock at 1024 (ext4, "Disk Layout"): s_magic, s_volume_name.
        #expect(try bytes(1024 + 0x38, 2) == [0x53, 0xEF])
        #expect(try bytes(1024 + 0x78, 11) == Array("ephemeral0\0".utf8))
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_size == 1 << 30 && status.st_blocks * 512 < 64 << 20)
    }

    @Test func aSwapDiskHasASwapArea() throws {
        defer { unlink(path) }
        try EmptyDisk(file: "disk.swap", byteCount: 64 << 20, purpose: .swap).make(at: path, DiskFormatting())
        #expect(try bytes(4086, 10) == Array("SWAPSPACE2".utf8))
        // Its last page, at 1028.
        #expect(try bytes(1028, 4) == [0xFF, 0x3F, 0, 0])
    }

    @Test func whatCannotBeMadeIsAnErrorInWordsAndNoFile() throws {
        let disk = EmptyDisk(file: "disk.eph0", byteCount: 1 << 20, purpose: .ephemeral(label: "a", osType: nil))
        var formatting = DiskFormatting(directories: ["/nowhere"], defaultFileSystem: nil)
        var error = #expect(throws: HostFailure.self) { try disk.make(at: path, formatting) }
        #expect(error?.description.contains("make file system vfat on \(path) with mkfs.vfat: No such file") == true)
        #expect(error?.remedy.contains("install the package that has mkfs.vfat") == true)
        formatting.defaultFileSystem = "../../bin/sh"
        error = #expect(throws: HostFailure.self) { try disk.make(at: path, formatting) }
        #expect(error?.errno == EINVAL)
        // Too small for an ext4.
        let small = EmptyDisk(file: "disk.eph0", byteCount: 4096, purpose: .ephemeral(label: "a", osType: "linux"))
        let failed = #expect(throws: HelperFailure.self) { try small.make(at: path, DiskFormatting()) }
        #expect(failed.map { $0.status != 0 && !$0.output.isEmpty } == true)
        #expect(!Files.exists(path))
    }
}
