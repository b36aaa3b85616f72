import CLinux
import HostSystem
import Testing

struct ChecksumTests {
    /// RFC 3720 appendix B.4, and the check value of the catalogues.
    @Test func knownValues() {
        #expect(Checksum.of(Array("123456789".utf8)) == 0xE306_9283)
        #expect(Checksum.of([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(Checksum.of([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(Checksum.of((0..<32).map { UInt8($0) }) == 0x46DD_794E)
        #expect(Checksum.of([]) == 0)
    }

    @Test func piecesGiveTheSumOfTheWhole() {
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        for cut in [0, 1, 7, 8, 9, 511, 999, 1000] {
            var checksum = Checksum()
            checksum.add(Array(bytes[..<cut]).span.bytes)
            checksum.add(Array(bytes[cut...]).span.bytes)
            #expect(checksum.value == Checksum.of(bytes), "cut at \(cut)")
        }
    }

    @Test func processorsInstructionAgreesWithTheTablelessWay() {
        for count in [0, 1, 7, 8, 9, 63, 64, 65, 4096] {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 131 &+ 17) }
            #expect(apus_crc32c_portable(0, bytes, count) == Checksum.of(bytes))
        }
    }
}
