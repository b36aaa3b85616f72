// The 512 bytes in which a device says what it is (ATA8-ACS §7.12.7 IDENTIFY DEVICE, §7.13.6 IDENTIFY PACKET DEVICE). Word numbers
// are the standard's.

extension ATADevice {
    private struct Words {
        var words = [UInt16](repeating: 0, count: 256)

        subscript(index: Int) -> UInt16 {
            get { words[index] }
            set { words[index] = newValue }
        }

        /// Two characters a word, the first in the high byte.
        mutating func setText(_ text: String, at index: Int, wordCount: Int) {
            let bytes = DriveIdentity.padded(text, wordCount * 2)
            for word in 0..<wordCount {
                words[index + word] = UInt16(bytes[2 * word]) << 8 | UInt16(bytes[2 * word + 1])
            }
        }

        /// Little-endian bytes, with the checksum of word 255.
        mutating func sealed() -> [UInt8] {
            words[255] = 0x00A5
            var bytes: [UInt8] = []
            bytes.reserveCapacity(512)
            for word in words {
                bytes.append(UInt8(truncatingIfNeeded: word))
                bytes.append(UInt8(truncatingIfNeeded: word >> 8))
            }
            bytes[511] = 0 &- bytes.reduce(0, &+)
            return bytes
        }
    }

    func identifyDevice() -> [UInt8] {
        var words = Words()
        // A geometry that says nothing of the medium any more: 16 heads of 63 sectors.
        let cylinders = UInt16(clamping: min(sectorCount / (16 * 63), 16383))
        words[0] = 0x0040  // fixed device
        words[1] = cylinders
        words[3] = 16
        words[6] = 63
        setNames(&words)
        words[47] = 0x8000 | UInt16(Self.multipleLimit)
        words[48] = 0x4000
        words[49] = 0x0F00  // IORDY that can be disabled, LBA, DMA
        words[50] = 0x4000
        words[53] = 0x0007  // words 54-58, 64-70 and 88 are valid
        let current = min(sectorCount / (UInt64(headCount) * UInt64(sectorsPerTrack)), 65535)
        words[54] = UInt16(clamping: current)
        words[55] = UInt16(headCount)
        words[56] = UInt16(sectorsPerTrack)
        let currentSectors = current * UInt64(headCount) * UInt64(sectorsPerTrack)
        words[57] = UInt16(truncatingIfNeeded: currentSectors)
        words[58] = UInt16(truncatingIfNeeded: currentSectors >> 16)
        words[59] = multipleCount > 0 ? 0x0100 | UInt16(multipleCount) : 0
        let short = min(sectorCount, 0x0FFF_FFFF)
        words[60] = UInt16(truncatingIfNeeded: short)
        words[61] = UInt16(truncatingIfNeeded: short >> 16)
        setTransferModes(&words)
        let worldWide: UInt16 = identity.worldWideName != 0 ? 0x0100 : 0
        words[80] = 0x01F0  // ATA-4 to ATA8-ACS
        words[82] = 0x4029  // NOP, write cache, power management, SMART
        words[83] = 0x7400  // FLUSH CACHE (EXT), 48-bit addresses
        // WRITE DMA FUA EXT; general purpose logs, which only NCQ needs.
        words[84] = 0x4040 | (isSerial ? 0x0020 : 0) | worldWide
        words[85] = 0x4008 | (isWriteCacheEnabled ? 0x0020 : 0) | (isSMARTEnabled ? 0x0001 : 0)
        words[86] = 0x3400
        words[87] = words[84]
        if !isSerial { words[93] = 0x6001 }  // 80-conductor cable, device 0 passed
        for index in 0..<4 { words[100 + index] = UInt16(truncatingIfNeeded: sectorCount >> UInt64(16 * index)) }
        words[105] = Self.trimBlockLimit
        if physicalBlockByteCount > 512 {
            words[106] = 0x6000 | UInt16((physicalBlockByteCount / 512).trailingZeroBitCount & 0xF)
        } else {
            words[106] = 0x4000
        }
        for index in 0..<4 {
            words[108 + index] = UInt16(truncatingIfNeeded: identity.worldWideName >> UInt64(48 - 16 * index))
        }
        words[169] = isReadOnly ? 0 : 1  // TRIM
        words[209] = 0x4000  // logical block 0 begins a physical one
        words[217] = 0x0001  // no rotating medium
        return words.sealed()
    }

    func identifyPacketDevice() -> [UInt8] {
        var words = Words()
        words[0] = 0x85C0  // ATAPI, CD-ROM, removable, DRQ within 50 microseconds, packets of 12 bytes
        setNames(&words)
        words[49] = 0x0F00
        words[50] = 0x4000
        words[53] = 0x0006
        setTransferModes(&words)
        words[71] = 30
        words[72] = 30
        words[80] = 0x01F0
        words[82] = 0x4218  // NOP, DEVICE RESET, PACKET, power management
        words[83] = 0x4000
        words[84] = 0x4000
        words[85] = 0x4218
        words[87] = 0x4000
        if !isSerial { words[93] = 0x6001 }
        return words.sealed()
    }

    private func setNames(_ words: inout Words) {
        words.setText(identity.serial, at: 10, wordCount: 10)
        words.setText(identity.firmware, at: 23, wordCount: 4)
        words.setText(identity.model, at: 27, wordCount: 20)
    }

    private func setTransferModes(_ words: inout Words) {
        words[51] = 0x0200
        words[63] = 0x0007
        words[64] = 0x0003  // PIO 3 and 4
        for index in 65...68 { words[index] = 120 }  // nanoseconds a cycle
        words[88] = 0x003F
        if transferMode & 0xF8 == 0x20 { words[63] |= 0x0100 << UInt16(transferMode & 7) }
        if transferMode & 0xF8 == 0x40 { words[88] |= 0x0100 << UInt16(transferMode & 7) }
        guard isSerial else { return }
        words[75] = 31  // queue depth less one
        words[76] = kind == .disk ? 0x0106 : 0x0006  // NCQ; 1.5 and 3 Gbit/s
    }
}
