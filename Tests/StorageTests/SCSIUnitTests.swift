import MachineCore
import Testing

@testable import Storage

private func makeDisk(blocks: UInt64 = 4096, isReadOnly: Bool = false) -> DiskUnit {
    var unit = DiskUnit(
        identity: testIdentity, byteCount: blocks * 512, isReadOnly: isReadOnly, physicalBlockByteCount: 4096)
    #expect(unit.perform(CommandBlock([0]), parameters: []) == .failed(.powerOnOrReset))
    return unit
}

private func data(_ answer: SCSIAnswer) -> [UInt8] {
    guard case .data(let bytes) = answer else { return [] }
    return bytes
}

@Suite struct DiskUnitTests {
    @Test func powerOnIsToldOnceAndNotToInquiry() {
        var unit = DiskUnit(identity: testIdentity, byteCount: 1 << 20, isReadOnly: false, physicalBlockByteCount: 512)
        let inquiry = data(unit.perform(CommandBlock([0x12, 0, 0, 0, 36]), parameters: []))
        #expect(inquiry.count == 36 && inquiry[0] == 0 && inquiry[2] == 5)
        #expect(String(decoding: inquiry[8..<32], as: UTF8.self) == "APUS    TESTDISK        ")
        #expect(unit.perform(CommandBlock([0]), parameters: []) == .failed(.powerOnOrReset))
        #expect(unit.takeSense() == .powerOnOrReset && unit.takeSense() == nil)
        #expect(unit.perform(CommandBlock([0]), parameters: []) == .good)
        unit.setByteCount(2 << 20)
        #expect(data(unit.perform(CommandBlock([3, 0, 0, 0, 18]), parameters: []))[12] == 0x2A)
        #expect(unit.perform(CommandBlock([0]), parameters: []) == .good)
    }

    @Test func capacityAndPagesDescribeTheDisk() {
        var unit = makeDisk()
        #expect(data(unit.perform(CommandBlock([0x25]), parameters: [])) == [0, 0, 0x0F, 0xFF, 0, 0, 2, 0])
        let long = data(unit.perform(CommandBlock([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]), parameters: []))
        #expect(long.count == 32 && long[7] == 0xFF && long[13] == 3 && long[14] == 0x80)
        let list = data(unit.perform(CommandBlock([0x12, 1, 0, 0, 255]), parameters: []))
        #expect(list == [0, 0, 0, 6, 0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2])
        let serial = data(unit.perform(CommandBlock([0x12, 1, 0x80, 0, 255]), parameters: []))
        #expect(String(decoding: serial[4...], as: UTF8.self) == "serial-0001")
        let names = data(unit.perform(CommandBlock([0x12, 1, 0x83, 0, 255]), parameters: []))
        #expect(Array(names.suffix(8)) == [0x50, 0x00, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC])
        let limits = data(unit.perform(CommandBlock([0x12, 1, 0xB0, 0, 255]), parameters: []))
        #expect(
            limits.count == 64 && limits[4] == 1 && Array(limits[8..<12]) == [0, 0, 0xFF, 0xFF]
                && Array(limits[20..<24]) == [0, 0x40, 0, 0])
        #expect(data(unit.perform(CommandBlock([0x12, 1, 0xB1, 0, 255]), parameters: []))[5] == 1)
        #expect(data(unit.perform(CommandBlock([0x12, 1, 0xB2, 0, 255]), parameters: []))[5] == 0xE0)
        #expect(unit.perform(CommandBlock([0x12, 1, 0x42, 0, 255]), parameters: []) == .failed(.invalidField))
        let caching = data(unit.perform(CommandBlock([0x1A, 8, 8, 0, 255]), parameters: []))
        #expect(caching.count == 24 && caching[4] == 8 && caching[5] == 18 && caching[6] & 4 == 4 && caching[2] == 0x10)
        let readOnly = data(
            {
                var unit = makeDisk(isReadOnly: true);
                return unit.perform(CommandBlock([0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255]), parameters: [])
            }())
        #expect(readOnly[3] == 0x90 && readOnly[7] == 8 && Int(readOnly[1]) == readOnly.count - 2)
    }

    @Test func blocksAreCheckedAgainstTheCapacity() {
        var unit = makeDisk()
        #expect(
            unit.perform(CommandBlock([0x28, 0, 0, 0, 0, 8, 0, 0, 2, 0]), parameters: [])
                == .work(.read(offset: 4096, byteCount: 1024)))
        #expect(
            unit.perform(CommandBlock([0x08, 0, 0, 8, 0]), parameters: [])
                == .work(.read(offset: 4096, byteCount: 256 * 512)))
        #expect(
            unit.perform(CommandBlock([0x2A, 8, 0, 0, 0x0F, 0xFF, 0, 0, 1]), parameters: [])
                == .work(.write(offset: 4095 * 512, byteCount: 512, isDurable: true)))
        #expect(
            unit.perform(CommandBlock([0x2A, 0, 0, 0, 0x0F, 0xFF, 0, 0, 2]), parameters: []) == .failed(.outOfRange))
        let far: [UInt8] = [0x88, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1]
        #expect(unit.perform(CommandBlock(far), parameters: []) == .failed(.outOfRange))
        #expect(
            unit.perform(CommandBlock([0xA8, 0, 0, 0, 0, 0, 0, 1, 0, 0]), parameters: []) == .failed(.invalidField))
        #expect(unit.perform(CommandBlock([0x35]), parameters: []) == .work(.flush))
        #expect(unit.perform(CommandBlock([0x2F, 0, 0, 0, 0, 0, 0, 0, 8]), parameters: []) == .good)
        #expect(unit.end(of: .read(offset: 0, byteCount: 512), errno: 5) == .unrecoveredReadError)
        #expect(data(unit.perform(CommandBlock([3, 0, 0, 0, 18]), parameters: []))[12] == 0x11)
        var readOnly = makeDisk(isReadOnly: true)
        #expect(
            readOnly.perform(CommandBlock([0x2A, 0, 0, 0, 0, 0, 0, 0, 1]), parameters: []) == .failed(.writeProtected))
    }

    @Test func unmapAndWriteSame() {
        var unit = makeDisk()
        let command = CommandBlock([0x42, 0, 0, 0, 0, 0, 0, 0, 24])
        #expect(unit.parameterByteCount(of: command) == 24)
        let list: [UInt8] = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0, 0, 0]
        #expect(unit.perform(command, parameters: list) == .work(.discard([ByteRange(offset: 4096, byteCount: 8192)])))
        #expect(unit.perform(command, parameters: Array(list[..<4])) == .failed(.parameterListLengthError))
        #expect(unit.perform(command, parameters: list.map { $0 == 16 ? 255 : $0 }) != .good)
        let same = CommandBlock([0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16])
        #expect(unit.parameterByteCount(of: same) == 512)
        #expect(
            unit.perform(same, parameters: [UInt8](repeating: 0, count: 512))
                == .work(.writeZeroes([ByteRange(offset: 4096, byteCount: 8192)], mayUnmap: true)))
        #expect(unit.perform(same, parameters: [UInt8](repeating: 1, count: 512)) == .failed(.invalidField))
        #expect(unit.perform(same, parameters: []) == .failed(.invalidField))
    }

    @Test func theWriteCacheIsTurnedOffWithAFlush() {
        var unit = makeDisk()
        let page: [UInt8] = [0, 0, 0, 0, 8, 18, 0] + [UInt8](repeating: 0, count: 17)
        #expect(unit.perform(CommandBlock([0x15, 0x10, 0, 0, UInt8(page.count)]), parameters: page) == .work(.flush))
        #expect(
            unit.perform(CommandBlock([0x2A, 0, 0, 0, 0, 0, 0, 0, 1]), parameters: [])
                == .work(.write(offset: 0, byteCount: 512, isDurable: true)))
        #expect(
            unit.perform(CommandBlock([0x15, 0x10, 0, 0, 7]), parameters: Array(page[..<7]))
                == .failed(.parameterListLengthError))
        var writer = StateWriter()
        unit.save(into: &writer)
        var other = makeDisk(blocks: 8192), reader = StateReader(section: "disk", bytes: writer.bytes)
        #expect(throws: Never.self) { try other.restore(from: &reader) }
        #expect(!other.isWriteCacheEnabled)
        #expect(other.perform(CommandBlock([0]), parameters: []) == .failed(.capacityChanged))
        var small = makeDisk(blocks: 16)
        reader = StateReader(section: "disk", bytes: writer.bytes)
        #expect(throws: DeviceStateError.self) { try small.restore(from: &reader) }
    }

    @Test(arguments: 0..<4)
    func randomBlocksDoNotTrap(seed: UInt64) {
        var random = SplitMix(seed)
        var disk = makeDisk(), optical = OpticalUnit(identity: testIdentity, byteCount: 900 << 20)
        let operations: [UInt8] = [
            0x00, 0x03, 0x08, 0x12, 0x15, 0x1A, 0x25, 0x28, 0x2A, 0x41, 0x42, 0x43, 0x46, 0x4A, 0x51, 0x55, 0x5A, 0x88,
            0x8A, 0x93, 0x9E, 0xA8, 0xAD, 0xBD, 0xBE,
        ]
        for _ in 0..<50_000 {
            var bytes = (0..<Int(random.next() % 17)).map { _ in
                random.next() % 3 == 0 ? 0 : UInt8(random.next() & 0xFF)
            }
            if !bytes.isEmpty, random.next() % 8 != 0 {
                bytes[0] = operations[Int(random.next() % UInt64(operations.count))]
            }
            let block = CommandBlock(bytes), wanted = disk.parameterByteCount(of: block)
            #expect(wanted <= 1 << 16 && optical.parameterByteCount(of: block) <= 1 << 16)
            let parameters = (0..<Int(random.next() % UInt64(min(wanted, 64) + 1))).map { _ in
                random.next() % 2 == 0 ? 0 : UInt8(random.next() & 0xFF)
            }
            for answer in [disk.perform(block, parameters: parameters), optical.perform(block, parameters: parameters)]
            {
                switch answer {
                case .work(.read(let offset, let count)), .work(.write(let offset, let count, _)):
                    #expect(count > 0 && offset < 900 << 20)
                case .work(.discard(let ranges)), .work(.writeZeroes(let ranges, _)):
                    #expect(ranges.allSatisfy { $0.offset + $0.byteCount <= 4096 * 512 })
                default: break
                }
            }
        }
    }
}

@Suite struct OpticalUnitTests {
    @Test func aTrayOpensClosesAndTells() {
        var unit = OpticalUnit(identity: testIdentity, byteCount: 300 * 2048)
        #expect(unit.perform(CommandBlock([0]), parameters: []) == .good)
        #expect(
            data(unit.perform(CommandBlock([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]), parameters: [])) == [
                0, 6, 4, 0x10, 0, 2, 0, 0,
            ])
        #expect(unit.perform(CommandBlock([0x1E, 0, 0, 0, 1]), parameters: []) == .good)
        #expect(unit.perform(CommandBlock([0x1B, 0, 0, 0, 2]), parameters: []) == .failed(.mediumRemovalPrevented))
        #expect(unit.perform(CommandBlock([0x1E, 0, 0, 0, 0]), parameters: []) == .good)
        #expect(unit.perform(CommandBlock([0x1B, 0, 0, 0, 2]), parameters: []) == .good)
        #expect(unit.perform(CommandBlock([0]), parameters: []) == .failed(.trayOpen))
        #expect(unit.perform(CommandBlock([0x28, 0, 0, 0, 0, 0, 0, 0, 1]), parameters: []) == .failed(.trayOpen))
        #expect(unit.perform(CommandBlock([0x1B, 0, 0, 0, 3]), parameters: []) == .good)
        #expect(unit.perform(CommandBlock([0]), parameters: []) == .failed(.mediumMayHaveChanged))
        #expect(unit.perform(CommandBlock([0]), parameters: []) == .good)
        #expect(data(unit.perform(CommandBlock([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]), parameters: []))[4] == 2)
    }

    @Test func discsAreDescribedAsCDOrDVD() {
        var cd = OpticalUnit(identity: testIdentity, byteCount: 300 * 2048),
            dvd = OpticalUnit(identity: testIdentity, byteCount: 4 << 30)
        let toc = data(cd.perform(CommandBlock([0x43, 0, 0, 0, 0, 0, 0, 0, 255]), parameters: []))
        #expect(toc == [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x16, 0xAA, 0, 0, 0, 1, 0x2C])
        let time = data(cd.perform(CommandBlock([0x43, 2, 0, 0, 0, 0, 0, 0, 255]), parameters: []))
        #expect(Array(time[8..<12]) == [0, 0, 2, 0] && Array(time[16..<20]) == [0, 0, 6, 0])
        let configuration = { (unit: inout OpticalUnit) in
            data(unit.perform(CommandBlock([0x46, 0, 0, 0, 0, 0, 0, 0, 255]), parameters: []))
        }
        #expect(Array(configuration(&cd)[6..<8]) == [0, 8] && Array(configuration(&dvd)[6..<8]) == [0, 0x10])
        let bytes = configuration(&cd)
        #expect(Int(bytes[3]) + 4 == bytes.count)
        #expect(data(dvd.perform(CommandBlock([0xAD, 0, 0, 0, 0, 0, 0, 0, 8, 4]), parameters: [])).count == 2052)
        #expect(
            cd.perform(CommandBlock([0xAD, 0, 0, 0, 0, 0, 0, 0, 8, 4]), parameters: [])
                == .failed(SenseData(key: 5, code: 0x30, qualifier: 2)))
        let mode = data(cd.perform(CommandBlock([0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 255]), parameters: []))
        #expect(mode.count == 28 && mode[8] == 0x2A && mode[9] == 18 && mode[2] == 1)
        #expect(data(cd.perform(CommandBlock([0x51, 0, 0, 0, 0, 0, 0, 0, 255]), parameters: [])).count == 34)
        #expect(
            cd.perform(CommandBlock([0xBE, 0, 0, 0, 0, 16, 0, 0, 2, 0x10]), parameters: [])
                == .work(.read(offset: 16 * 2048, byteCount: 4096)))
    }
}
