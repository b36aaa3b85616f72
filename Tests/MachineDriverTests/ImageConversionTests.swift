import ComputeDriver
import Glibc
import Testing

@testable import MachineDriver

private let hasQEMUImg = access("/usr/bin/qemu-img", X_OK) == 0

@Suite(.enabled(if: hasQEMUImg, "qemu-img (qemu-utils) is not installed")) struct ImageConversionTests {
    private let scratch = "/tmp/apus-conversion-\(getpid())-\(UInt32.random(in: 0 ... .max))"

    private func sh(_ command: String) -> Bool { system("cd \(scratch) && { \(command); } > log 2>&1") == 0 }
    private func descriptor(_ name: String) throws -> Descriptor { try Descriptor(opening: "\(scratch)/\(name)", O_RDONLY) }

    init() throws {
        try #require(mkdir(scratch, 0o700) == 0)
        try #require(sh("head -c 3000000 /dev/urandom > raw && truncate -s 10M raw"))
    }

    @Test(arguments: ["qcow2", "vmdk", "vhd", "vhdx", "vdi"])
    func everyFormatBecomesTheSameDiskWithHoles(format: String) throws {
        defer { _ = system("rm -rf \(scratch)") }
        try #require(sh("qemu-img convert -f raw -O \(format == "vhd" ? "vpc -o force_size=on" : format) raw image"))
        let file = try descriptor("image")
        let image = try ImageConversion.open(file, format: format, imageID: "i")
        try ImageConversion.convert(image, imageID: "i", to: "\(scratch)/disk") { false }
        #expect(sh("test $(stat -c %s disk) = 10485760 && cmp raw disk && test $(du -k disk | cut -f1) -lt 9000"))
        // Cancelled: nothing stays.
        #expect(throws: CancellationError.self) { try ImageConversion.convert(image, imageID: "i", to: "\(scratch)/other") { true } }
        #expect(access("\(scratch)/other", F_OK) != 0)
    }

    @Test func anImageThatStandsOnAnotherIsRefusedInWords() throws {
        defer { _ = system("rm -rf \(scratch)") }
        try #require(sh("qemu-img create -f qcow2 -b /etc/passwd -F raw image 10M"))
        let file = try descriptor("image")
        let error = #expect(throws: DriverError.self) { try ImageConversion.open(file, format: "qcow2", imageID: "i") }
        #expect(error?.novaClass == "ImageUnacceptable" && error?.tenantMessage.contains("backing") == true, "\(error?.tenantMessage ?? "")")
        #expect(error?.tenantMessage.contains("/etc/passwd") == false)
    }
}
