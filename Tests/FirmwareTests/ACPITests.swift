import Firmware
import Glibc
import GuestMemory
import Testing

struct ACPITests {
    private func tables(processors: Int) throws -> [String: [UInt8]] {
        let memory = try GuestMemory(byteCount: 64 << 20)
        let description = ACPIDescription(apicIDs: (0..<processors).map { UInt32($0) }, hasSerialPort: true, highMemoryEnd: 1 << 32)
        let rsdp = try ACPITables.place(description, in: memory)
        let root = try memory.bytes(at: rsdp, count: 36)
        #expect(root[..<20].reduce(0, &+) == 0 && root.reduce(0, &+) == 0, "both checksums of the RSDP")
        func table(_ address: UInt64) throws -> [UInt8] {
            let length = try memory.load(UInt32.self, at: GuestAddress(address + 4))
            return try memory.bytes(at: GuestAddress(address), count: Int(length))
        }
        let xsdt = try table(try memory.load(UInt64.self, at: GuestAddress(rsdp.rawValue + 24)))
        var found = ["XSDT": xsdt]
        for entry in stride(from: 36, to: xsdt.count, by: 8) {
            let address = (0..<8).reduce(UInt64(0)) { $0 | UInt64(xsdt[entry + $1]) << (UInt64($1) * 8) }
            let bytes = try table(address)
            found[String(decoding: bytes[..<4], as: UTF8.self)] = bytes
        }
        if let fadt = found["FACP"] {
            found["DSDT"] = try table((0..<8).reduce(UInt64(0)) { $0 | UInt64(fadt[140 + $1]) << (UInt64($1) * 8) })
        }
        return found
    }

    @Test func everyTableIsThereAndItsChecksumHolds() throws {
        let found = try tables(processors: 4)
        #expect(Set(found.keys) == ["XSDT", "FACP", "APIC", "MCFG", "WAET", "DSDT"])
        for (name, bytes) in found { #expect(bytes.reduce(0, &+) == 0, "checksum of \(name)") }
    }

    @Test func madtNamesEveryProcessor() throws {
        let madt = try #require(try tables(processors: 3)["APIC"])
        var processors: [UInt8] = [], at = 44
        while at + 1 < madt.count, madt[at + 1] > 0 {
            if madt[at] == 0 { processors.append(madt[at + 3]) }
            at += Int(madt[at + 1])
        }
        #expect(processors == [0, 1, 2] && at == madt.count)
    }

    @Test(.enabled(if: access("/usr/bin/iasl", X_OK) == 0, "iasl (acpica-tools) is not installed"))
    func iaslDisassemblesTheDSDTWithoutAComplaint() throws {
        let dsdt = try #require(try tables(processors: 17)["DSDT"])
        let path = "/tmp/apus-dsdt-\(getpid()).aml"
        let file = try #require(fopen(path, "w"))
        #expect(fwrite(dsdt, 1, dsdt.count, file) == dsdt.count)
        fclose(file)
        let listing = "/tmp/apus-dsdt-\(getpid()).txt"
        let status = system("iasl -d \(path) > \(listing) 2>&1 && ! grep -iE 'error|warning|invalid' \(listing)")
        #expect(status == 0)
        _ = system("rm -f /tmp/apus-dsdt-\(getpid()).*")
    }
}
