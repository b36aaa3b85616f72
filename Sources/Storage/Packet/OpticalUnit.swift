// A CD or DVD drive with a disc of 2048-byte blocks in it: the MMC-6 commands that firmware, installers and desktops send. The
// disc is an image, one data track from block 0.
package import MachineCore

package struct OpticalUnit: LogicalUnit {
    package static let blockByteCount: UInt64 = 2048
    /// 80 minutes of 75 blocks a second: what is longer is no CD.
    private static let compactDiscBlocks: UInt64 = 80 * 60 * 75

    let identity: DriveIdentity
    package private(set) var blockCount: UInt64
    private var isTrayOpen = false
    private var isRemovalPrevented = false
    private var hasNewMedium = false
    private var sense: SenseData?
    private var unitAttention: SenseData?

    /// - Parameter byteCount: of the image; what is left over a whole block is not readable.
    package init(identity: DriveIdentity, byteCount: UInt64) {
        self.identity = identity
        // READ CAPACITY has 32 bits for the last block.
        blockCount = min(byteCount / Self.blockByteCount, 1 << 32 - 1)
    }

    package var isRemovable: Bool { true }
    private var hasMedium: Bool { blockCount > 0 && !isTrayOpen }
    private var isDVD: Bool { blockCount > Self.compactDiscBlocks }

    package mutating func reset() {
        isRemovalPrevented = false
        sense = nil
        unitAttention = nil
    }

    package mutating func takeSense() -> SenseData? {
        defer { sense = nil }
        return sense
    }

    package func parameterByteCount(of block: CommandBlock) -> Int {
        switch block.operation {
        case SCSIOperation.modeSelect6: Int(block[4])
        case SCSIOperation.modeSelect10: Int(block.field(7, 2))
        default: 0
        }
    }

    package mutating func perform(_ block: CommandBlock, parameters: [UInt8]) -> SCSIAnswer {
        let answer = answer(block)
        switch answer {
        case .failed(let reason): sense = reason
        default: if block.operation != SCSIOperation.requestSense { sense = nil }
        }
        return answer
    }

    package mutating func end(of work: DiskWork, errno: Int32) -> SenseData? {
        guard errno != 0 else { return nil }
        sense = .unrecoveredReadError
        return sense
    }

    private mutating func answer(_ block: CommandBlock) -> SCSIAnswer {
        switch block.operation {
        case SCSIOperation.inquiry:
            return InquiryData(peripheralDeviceType: 0x05, isRemovable: true, identity: identity).answer(block)
        case SCSIOperation.requestSense: return requestSense(block)
        case SCSIOperation.getEventStatusNotification: return eventStatus(block)
        case SCSIOperation.getConfiguration: return configuration(block)
        default: break
        }
        // SAM-4 §5.14: told once, by the first command but those above.
        if let attention = unitAttention {
            unitAttention = nil
            return .failed(attention)
        }
        switch block.operation {
        case SCSIOperation.modeSense6, SCSIOperation.modeSense10: return modeSense(block)
        case SCSIOperation.modeSelect6, SCSIOperation.modeSelect10, SCSIOperation.setCDSpeed: return .good
        case SCSIOperation.preventAllowMediumRemoval:
            isRemovalPrevented = block[4] & 1 != 0
            return .good
        case SCSIOperation.startStopUnit: return startStop(block)
        case SCSIOperation.mechanismStatus:
            return .data(Array([0, isTrayOpen ? 0x10 : 0, 0, 0, 0, 1, 0, 0].prefix(Int(block.field(8, 2)))))
        default: break
        }
        guard hasMedium else {
            return isDiscCommand(block)
                ? .failed(isTrayOpen ? .trayOpen : .mediumNotPresent) : .failed(.invalidOperation)
        }
        switch block.operation {
        case SCSIOperation.testUnitReady, SCSIOperation.synchronizeCache10: return .good
        case SCSIOperation.readCapacity10:
            return .data(bigEndian(blockCount - 1, 4) + bigEndian(Self.blockByteCount, 4))
        case SCSIOperation.read10: return read(block.field(2, 4), block.field(7, 2))
        case SCSIOperation.read12: return read(block.field(2, 4), block.field(6, 4))
        case SCSIOperation.readCD: return readCD(block)
        case SCSIOperation.seek10: return block.field(2, 4) < blockCount ? .good : .failed(.outOfRange)
        case SCSIOperation.readTOC: return tableOfContents(block)
        case SCSIOperation.readDiscInformation: return discInformation(block)
        case SCSIOperation.readDVDStructure: return structure(block)
        default: return .failed(.invalidOperation)
        }
    }

    private func isDiscCommand(_ block: CommandBlock) -> Bool {
        [
            SCSIOperation.testUnitReady, SCSIOperation.synchronizeCache10, SCSIOperation.readCapacity10,
            SCSIOperation.read10, SCSIOperation.read12,
            SCSIOperation.readCD, SCSIOperation.seek10, SCSIOperation.readTOC, SCSIOperation.readDiscInformation,
            SCSIOperation.readDVDStructure,
        ].contains(block.operation)
    }

    // MARK: Status

    private mutating func requestSense(_ block: CommandBlock) -> SCSIAnswer {
        let reason = sense ?? unitAttention ?? .none
        if sense == nil { unitAttention = nil }
        sense = nil
        return .data(Array(reason.bytes.prefix(Int(block[4]))))
    }

    private mutating func startStop(_ block: CommandBlock) -> SCSIAnswer {
        guard block[4] & 0x02 != 0 else { return .good }  // LOEJ
        let opens = block[4] & 0x01 == 0
        if opens, isRemovalPrevented { return .failed(.mediumRemovalPrevented) }
        if isTrayOpen, !opens {
            hasNewMedium = true
            unitAttention = .mediumMayHaveChanged
        }
        isTrayOpen = opens
        return .good
    }

    /// Media events only, polled (MMC-6 §6.7).
    private mutating func eventStatus(_ block: CommandBlock) -> SCSIAnswer {
        guard block[1] & 1 != 0 else { return .failed(.invalidField) }  // asynchronous: not offered
        let limit = Int(block.field(7, 2))
        guard block[4] & 0x10 != 0 else { return .data(Array([0, 2, 0x80, 0x10].prefix(limit))) }
        let event: UInt8 = hasNewMedium ? 0x02 : 0
        hasNewMedium = false
        let presence: UInt8 = (isTrayOpen ? 0x01 : 0) | (hasMedium ? 0x02 : 0)
        return .data(Array([0, 6, 0x04, 0x10, event, presence, 0, 0].prefix(limit)))
    }

    // MARK: Reading

    private func read(_ first: UInt64, _ count: UInt64) -> SCSIAnswer {
        guard first <= blockCount, count <= blockCount - first else { return .failed(.outOfRange) }
        // READ(12) can ask for terabytes: no host has a buffer of more than this, and no length may overflow.
        guard count <= 1 << 18 else { return .failed(.invalidField) }
        guard count > 0 else { return .good }
        return .work(.read(offset: first * Self.blockByteCount, byteCount: Int(count * Self.blockByteCount)))
    }

    private func readCD(_ block: CommandBlock) -> SCSIAnswer {
        let count = block.field(6, 3)
        switch block[9] & 0xF8 {
        case 0x00: return .good  // nothing asked of a block
        case 0x10: return read(block.field(2, 4), count)  // user data
        default: return .failed(.invalidField)
        }
    }

    // MARK: Saved state

    package func save(into writer: inout StateWriter) {
        writer.write(blockCount)
        for flag in [isTrayOpen, isRemovalPrevented, hasNewMedium] { writer.write(flag) }
        for item in [sense, unitAttention] {
            writer.write(item != nil)
            for byte in [item?.key ?? 0, item?.code ?? 0, item?.qualifier ?? 0] { writer.write(byte) }
        }
    }

    package mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let saved = try reader.read(UInt64.self)
        guard saved == blockCount else {
            throw DeviceStateError(
                section: reader.section, reason: "the disc had \(saved) blocks and has \(blockCount) now")
        }
        isTrayOpen = try reader.readBool()
        isRemovalPrevented = try reader.readBool()
        hasNewMedium = try reader.readBool()
        sense = try SenseData.read(from: &reader)
        unitAttention = try SenseData.read(from: &reader)
    }
}

extension SenseData {
    /// Presence, key, code, qualifier.
    static func read(from reader: inout StateReader) throws(DeviceStateError) -> SenseData? {
        let isPresent = try reader.readBool()
        let sense = SenseData(key: try reader.read(), code: try reader.read(), qualifier: try reader.read())
        return isPresent ? sense : nil
    }
}

// MARK: - Descriptions

extension OpticalUnit {
    /// One data track and the lead-out, as addresses or minutes, seconds and frames (MMC-6 §6.26).
    private func tableOfContents(_ block: CommandBlock) -> SCSIAnswer {
        let limit = Int(block.field(7, 2)), isTime = block[1] & 0x02 != 0
        let address = { (number: UInt64) -> [UInt8] in isTime ? [0] + Self.time(number + 150) : bigEndian(number, 4) }
        // Older hosts give the format in the last byte.
        let format = block[2] & 0x0F != 0 ? block[2] & 0x0F : block[9] >> 6
        var body: [UInt8]
        switch format {
        case 0:
            guard block[6] <= 1 || block[6] == 0xAA else { return .failed(.invalidField) }
            body = [1, 1]
            if block[6] <= 1 { body += [0, 0x14, 1, 0] + address(0) }
            body += [0, 0x16, 0xAA, 0] + address(blockCount)
        case 1: body = [1, 1, 0, 0x14, 1, 0] + address(0)
        case 2:
            body = [1, 1]
            for point: UInt8 in [0xA0, 0xA1, 0xA2, 0x01] {
                let place: [UInt8] =
                    point == 0xA2 ? Self.time(blockCount + 150) : point == 0x01 ? Self.time(150) : [1, 0, 0]
                body += [1, 0x14, 0, point, 0, 0, 0, 0] + place
            }
        default: return .failed(.invalidField)
        }
        return .data(Array((bigEndian(UInt64(body.count), 2) + body).prefix(limit)))
    }

    /// Minute, second, frame; what does not fit the minute byte is shown as the last.
    private static func time(_ frames: UInt64) -> [UInt8] {
        [UInt8(clamping: frames / (60 * 75)), UInt8(frames / 75 % 60), UInt8(frames % 75)]
    }

    private var profile: UInt64 { !hasMedium ? 0 : isDVD ? 0x10 : 0x08 }

    /// Profiles and features (MMC-6 §6.6 and §5).
    private func configuration(_ block: CommandBlock) -> SCSIAnswer {
        let requested = block[1] & 0x03, first = block.field(2, 2), limit = Int(block.field(7, 2))
        guard requested <= 2 else { return .failed(.invalidField) }
        let dvd: UInt8 = profile == 0x10 ? 1 : 0, cd: UInt8 = profile == 0x08 ? 1 : 0, any: UInt8 = profile != 0 ? 1 : 0
        let features: [(code: UInt64, isCurrent: Bool, bytes: [UInt8])] = [
            (0x0000, true, [0x03, 8, 0x00, 0x10, dvd, 0, 0x00, 0x08, cd, 0]),
            (0x0001, true, [0x0B, 8, 0, 0, 0, 2, 0x01, 0, 0, 0]),  // core: ATAPI
            (0x0003, true, [0x03, 4, 0x39, 0, 0, 0]),  // removable: tray, eject, lock
            (0x0010, any != 0, [0x00 | any, 8, 0, 0, 0x08, 0, 0, 1, 0x01, 0]),
            (0x001E, cd != 0, [0x08 | cd, 4, 0, 0, 0, 0]),
            (0x001F, dvd != 0, [0x08 | dvd, 4, 0, 0, 0, 0]),
        ]
        var body: [UInt8] = []
        for feature in features {
            switch requested {
            case 0 where feature.code >= first: break
            case 1 where feature.code >= first && feature.isCurrent: break
            case 2 where feature.code == first: break
            default: continue
            }
            body += bigEndian(feature.code, 2) + feature.bytes
        }
        return .data(
            Array((bigEndian(UInt64(body.count + 4), 4) + [0, 0] + bigEndian(profile, 2) + body).prefix(limit)))
    }

    /// Pages 01h (error recovery), 0Eh (audio) and 2Ah (capabilities).
    private func modeSense(_ block: CommandBlock) -> SCSIAnswer {
        guard block[2] & 0xC0 != 0xC0 else { return .failed(.savingNotSupported) }
        let isShort = block.operation == SCSIOperation.modeSense6, page = block[2] & 0x3F
        let isChangeable = block[2] & 0xC0 == 0x40
        var pages: [(UInt8, [UInt8])] = [(0x01, [0x80, 5, 0, 0, 0, 0])]
        pages.append((0x0E, [0x04, 0, 0, 0, 0, 0x4B, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0]))
        let lock: UInt8 = 0x29 | (isRemovalPrevented ? 0x02 : 0)
        pages.append((0x2A, [0x3B, 0x00, 0x70, 0x60, lock, 0, 0x02, 0xC2, 0, 2, 0x02, 0x00, 0x02, 0xC2, 0, 0, 0, 0]))
        var body: [UInt8] = []
        for (code, bytes) in pages where page == code || page == 0x3F {
            body += [code, UInt8(bytes.count)] + (isChangeable ? [UInt8](repeating: 0, count: bytes.count) : bytes)
        }
        guard !body.isEmpty else { return .failed(.invalidField) }
        let medium: UInt8 = isTrayOpen ? 0x71 : hasMedium ? 0x01 : 0x70
        if isShort {
            return .data(Array(([UInt8(clamping: body.count + 3), medium, 0, 0] + body).prefix(Int(block[4]))))
        }
        return .data(
            Array(
                (bigEndian(UInt64(body.count + 6), 2) + [medium, 0, 0, 0, 0, 0] + body).prefix(Int(block.field(7, 2)))))
    }

    /// A complete disc of one session and one track, not erasable.
    private func discInformation(_ block: CommandBlock) -> SCSIAnswer {
        guard block[1] & 0x07 == 0 else { return .failed(.invalidField) }
        var data = [UInt8](repeating: 0, count: 34)
        data.replaceSubrange(0..<8, with: [0, 32, 0x0E, 1, 1, 1, 1, 0x20])
        for index in 17..<24 { data[index] = 0xFF }
        return .data(Array(data.prefix(Int(block.field(7, 2)))))
    }

    /// Layer 0 (format 00h), copyright (01h: none) and the list of both (FFh), where the disc is a DVD.
    private func structure(_ block: CommandBlock) -> SCSIAnswer {
        guard isDVD else { return .failed(SenseData(key: 0x5, code: 0x30, qualifier: 0x02)) }  // incompatible format
        guard block[1] & 0x0F == 0, block[6] == 0 else { return .failed(.invalidField) }
        var body: [UInt8]
        switch block[7] {
        case 0x00:
            body = [UInt8](repeating: 0, count: 2048)
            body.replaceSubrange(0..<4, with: [0x01, 0x0F, 0x01, 0x00])
            // The data area begins at 30000h and ends with the disc.
            body.replaceSubrange(4..<12, with: [0x00, 0x03, 0x00, 0x00] + bigEndian(0x3_0000 + blockCount - 1, 4))
        case 0x01: body = [0, 0, 0, 0]
        case 0xFF: body = [0x00, 0x40, 0x08, 0x04, 0x01, 0x40, 0x00, 0x08]
        default: return .failed(.invalidField)
        }
        return .data(Array((bigEndian(UInt64(body.count + 2), 2) + [0, 0] + body).prefix(Int(block.field(8, 2)))))
    }
}
