import Firmware
import Glibc
import Testing

/// SRAT and SLIT byte by byte, and as iasl reads them.
struct ProximityDomainTests {
    private static let gib: UInt64 = 1 << 30

    /// Two nodes, of which the first has the RAM around the hole; APIC ids of both widths.
    private var description: ACPIDescription {
        var description = ACPIDescription(apicIDs: [0, 2, 254, 255, 300], hasSerialPort: true, highMemoryEnd: 6 << 30)
        description.proximity = ProximityDomains(
            processors: [0, 0, 1, 1, 258],
            memory: [
                ProximityDomains.MemoryRange(base: 0, byteCount: 3 * Self.gib, node: 0), ProximityDomains.MemoryRange(base: 4 * Self.gib, byteCount: Self.gib, node: 0),
                ProximityDomains.MemoryRange(base: 5 * Self.gib, byteCount: Self.gib, node: 1),
            ], distances: [[10, 25], [30, 10]])
        return description
    }

    private func tables(_ description: ACPIDescription) -> [String: [UInt8]] {
        let bytes = ACPITables.files(description)[ACPITables.File.tables] ?? []
        var found: [String: [UInt8]] = [:], at = 0
        while at + 8 <= bytes.count {
            let count = Int(number(bytes[(at + 4)..<(at + 8)]))
            guard bytes[at] != 0, count >= 8, at + count <= bytes.count else {
                at += 16
                continue
            }
            found[String(decoding: bytes[at..<(at + 4)], as: UTF8.self)] = Array(bytes[at..<(at + count)])
            at = (at + count + 15) & ~15
        }
        return found
    }

    private func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }

    @Test func everyProcessorAndAllRAMHaveTheirNodes() throws {
        let srat = try #require(tables(description)["SRAT"])
        #expect(srat[8] == 3 && number(srat[36..<40]) == 1)
        var processors: [[UInt64]] = [], memory: [[UInt64]] = [], at = 48
        while at + 1 < srat.count, srat[at + 1] > 0 {
            let entry = srat[at..<(at + Int(srat[at + 1]))]
            func field(_ offset: Int, _ count: Int) -> UInt64 { number(entry[(at + offset)..<(at + offset + count)]) }
            switch entry[at] {
            case 0: processors.append([0, field(3, 1), field(2, 1) | field(9, 3) << 8, field(4, 4)])
            case 1: memory.append([field(2, 4), field(8, 8), field(16, 8), field(28, 4)])
            case 2: processors.append([2, field(8, 4), field(4, 4), field(12, 4)])
            default: Issue.record("structure \(entry[at])")
            }
            at += entry.count
        }
        #expect(at == srat.count)
        #expect(processors == [[0, 0, 0, 1], [0, 2, 0, 1], [0, 254, 1, 1], [2, 255, 1, 1], [2, 300, 258, 1]])
        #expect(memory == [[0, 0, 3 * Self.gib, 1], [0, 4 * Self.gib, Self.gib, 1], [1, 5 * Self.gib, Self.gib, 1]])
    }

    @Test func distancesAreAMatrixByRows() throws {
        let slit = try #require(tables(description)["SLIT"])
        #expect(slit.count == 36 + 8 + 4 && number(slit[36..<44]) == 2 && Array(slit[44...]) == [10, 25, 30, 10])
    }

    @Test func withoutNodesThereIsNeitherTable() {
        var without = description
        without.proximity = nil
        #expect(tables(without)["SRAT"] == nil && tables(without)["SLIT"] == nil)
        #expect(Set(tables(description).keys).subtracting(tables(without).keys) == ["SRAT", "SLIT"])
    }

    @Test(.enabled(if: access("/usr/bin/iasl", X_OK) == 0, "iasl (acpica-tools) is not installed")) func iaslReadsBothWithoutAComplaint() throws {
        let directory = "/tmp/apus-srat-\(getpid())"
        try #require(mkdir(directory, 0o700) == 0)
        defer { _ = system("rm -rf \(directory)") }
        for name in ["SRAT", "SLIT"] {
            var bytes = try #require(tables(description)[name])
            bytes[9] = 0 &- bytes.reduce(0, &+)
            let file = try #require(fopen("\(directory)/\(name).aml", "w"))
            #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
            fclose(file)
            let log = "\(directory)/\(name).txt"
            #expect(system("cd \(directory) && iasl -d \(name).aml > \(log) 2>&1 && ! grep -iE 'error|warning|invalid|unknown' \(log)") == 0, "\(name)")
            // What iasl makes of its own text is the same table.
            let again = "cd \(directory) && iasl -p again \(name).dsl > again.txt 2>&1 && tail -c +37 again.aml > a && tail -c +37 \(name).aml > b && cmp a b"
            #expect(system(again) == 0, "\(name)")
        }
    }
}
