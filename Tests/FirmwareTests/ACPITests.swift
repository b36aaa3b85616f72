import Firmware
import Glibc
import GuestMemory
import Testing

struct ACPITests {
    private func tables(processors: Int, hasKeyboardController: Bool = false) throws -> [String: [UInt8]] {
        try tables(apicIDs: (0..<processors).map { UInt32($0) }, hasKeyboardController: hasKeyboardController)
    }

    private func tables(
        apicIDs: [UInt32], hasKeyboardController: Bool = false, _ change: (inout ACPIDescription) -> Void = { _ in }
    ) throws -> [String: [UInt8]] {
        let memory = try GuestMemory(byteCount: 64 << 20)
        var description = ACPIDescription(
            apicIDs: apicIDs, hasSerialPort: true, highMemoryEnd: 1 << 32, hasKeyboardController: hasKeyboardController)
        change(&description)
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

    private static func nameAll(_ description: inout ACPIDescription) {
        description.hasHPET = true
        description.hasPanicPort = true
        description.hasGenerationID = true
        description.floppyDriveCount = 1
    }

    @Test func devicesThatAreNamedHaveTheirTablesAndNames() throws {
        let with = try tables(apicIDs: [0], Self.nameAll), without = try tables(apicIDs: [0])
        #expect(Set(with.keys).subtracting(without.keys) == ["HPET", "SSDT"])
        let hpet = try #require(with["HPET"])
        #expect(hpet.count == 56 && Array(hpet[36..<40]) == [0x01, 0xA2, 0x86, 0x80] && Array(hpet[44..<52]) == [0, 0, 0xD0, 0xFE, 0, 0, 0, 0])
        for (name, bytes) in with { #expect(bytes.reduce(0, &+) == 0, "checksum of \(name)") }
        // The name VGIA, and the page's address as a double word.
        #expect(try Array(#require(with["SSDT"])[36..<46]) == [0x08] + Array("VGIA".utf8) + [0x0C, 0x00, 0xF0, 0x0F, 0x00])
        let dsdt = String(decoding: try #require(with["DSDT"]).map { $0 & 0x7F }, as: UTF8.self)
        #expect(dsdt.contains("PEVT") && dsdt.contains("QEMU0001") && dsdt.contains("FDC0") && dsdt.contains("HPET"))
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

    @Test func processorsFrom255OnAreNamedInX2APICEntriesWithTheirOwnNMI() throws {
        let madt = try #require(try tables(apicIDs: [0, 254, 255, 300])["APIC"])
        var short: [UInt8] = [], long: [UInt32] = [], kinds: [UInt8] = [], at = 44
        while at + 1 < madt.count, madt[at + 1] > 0 {
            kinds.append(madt[at])
            if madt[at] == 0 { short.append(madt[at + 3]) }
            if madt[at] == 9 { long.append(UInt32(madt[at + 4]) | UInt32(madt[at + 5]) << 8) }
            at += Int(madt[at + 1])
        }
        #expect(short == [0, 254] && long == [255, 300] && kinds.contains(4) && kinds.contains(10) && at == madt.count)
    }

    @Test func keyboardControllerIsNamedOnlyWhereThereIsOne() throws {
        let keyboard: [UInt8] = [0x0C, 0x41, 0xD0, 0x03, 0x03]  // PNP0303 as an EISA id
        func names(_ table: [UInt8]) -> Bool { (0..<(table.count - 4)).contains { Array(table[$0..<($0 + 5)]) == keyboard } }
        let without = try tables(processors: 1), with = try tables(processors: 1, hasKeyboardController: true)
        #expect(try !names(#require(without["DSDT"])))
        #expect(try names(#require(with["DSDT"])))
        #expect(without["FACP"]?[109] == 1 && with["FACP"]?[109] == 3)
    }

    @Test func widePCIWindowBeginsBehindRAMOnAGiBBoundary() {
        #expect(MemoryMap.widePCIWindow(highMemoryEnd: 0).lowerBound == 1 << 32)
        let window = MemoryMap.widePCIWindow(highMemoryEnd: 1 << 32 + 1 << 12)
        #expect(window.lowerBound == 5 << 30 && window.upperBound == (5 + 256) << 30 - 1)
        _ = MemoryMap.widePCIWindow(highMemoryEnd: .max)
    }

    @Test func tooManyProcessorsAreRefusedInWords() throws {
        #expect(throws: LoaderError.self) { try tables(processors: 4000) }
    }

    @Test(.enabled(if: access("/usr/bin/iasl", X_OK) == 0, "iasl (acpica-tools) is not installed"), arguments: [1, 17, 300])
    func iaslReadsEveryTableWithoutAComplaint(processors: Int) throws {
        let directory = "/tmp/apus-acpi-\(getpid())-\(processors)"
        try #require(mkdir(directory, 0o700) == 0)
        defer { _ = system("rm -rf \(directory)") }
        for (name, bytes) in try tables(apicIDs: (0..<processors).map { UInt32($0) }, hasKeyboardController: true, Self.nameAll) {
            let file = try #require(fopen("\(directory)/\(name).aml", "w"))
            #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
            fclose(file)
            let log = "\(directory)/\(name).txt"
            let status = system("cd \(directory) && iasl -d \(name).aml > \(log) 2>&1 && ! grep -iE 'error|warning|invalid|unknown' \(log)")
            #expect(status == 0, "\(name)")
        }
        // What was disassembled must compile again: it is what a stranger reads.
        #expect(system("cd \(directory) && iasl -p again DSDT.dsl > again.txt 2>&1 && grep -q '0 Errors, 0 Warnings' again.txt") == 0)
    }
}
