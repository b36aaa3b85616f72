// How a SCSI disk describes itself: vital product data (SBC-3 §6.5), capacity, mode pages (§6.4).

extension DiskUnit {
    func inquiry(_ block: CommandBlock) -> SCSIAnswer {
        var limits = [UInt8](repeating: 0, count: 60)
        limits[0] = 0x01  // WSNZ
        limits.replaceSubrange(4..<8, with: bigEndian(Self.transferLimit, 4))
        limits.replaceSubrange(16..<20, with: bigEndian(isReadOnly ? 0 : Self.unmapBlockLimit, 4))
        limits.replaceSubrange(20..<24, with: bigEndian(isReadOnly ? 0 : UInt64(Self.unmapDescriptorLimit), 4))
        limits.replaceSubrange(24..<28, with: bigEndian(UInt64(max(1, physicalBlockByteCount / 512)), 4))
        limits.replaceSubrange(32..<40, with: bigEndian(Self.writeSameLimit, 8))
        var characteristics = [UInt8](repeating: 0, count: 60)
        characteristics[1] = 1  // no rotating medium
        // UNMAP and both WRITE SAMEs free blocks; thin provisioned. What freed blocks read as is not promised.
        let provisioning: [UInt8] = [0, isReadOnly ? 0 : 0xE0, 0x02, 0]
        return InquiryData(peripheralDeviceType: 0x00, isRemovable: false, identity: identity)
            .answer(block, pages: [(0xB0, limits), (0xB1, characteristics), (0xB2, provisioning)])
    }

    func readCapacity16(_ block: CommandBlock) -> SCSIAnswer {
        var data = bigEndian(blockCount &- 1, 8) + bigEndian(Self.blockByteCount, 4) + [UInt8](repeating: 0, count: 20)
        data[13] = UInt8((max(1, physicalBlockByteCount / 512)).trailingZeroBitCount & 0xF)
        if !isReadOnly { data[14] = 0x80 }  // LBPME
        return .data(Array(data.prefix(Int(clamping: block.field(10, 4)))))
    }

    /// Error recovery, caching and control, with the bits of the caching page that can be changed.
    private func pages(isChangeable: Bool) -> [(code: UInt8, bytes: [UInt8])] {
        var caching = [UInt8](repeating: 0, count: 18)
        if isChangeable || isWriteCacheEnabled { caching[0] = 0x04 }  // WCE
        var recovery = [UInt8](repeating: 0, count: 10), control = [UInt8](repeating: 0, count: 10)
        if !isChangeable {
            recovery[0] = 0x80  // AWRE
            control[1] = 0x10  // commands may be reordered
        }
        return [(0x01, recovery), (0x08, caching), (0x0A, control)]
    }

    func modeSense(_ block: CommandBlock) -> SCSIAnswer {
        guard block[2] & 0xC0 != 0xC0 else { return .failed(.savingNotSupported) }
        let isShort = block.operation == SCSIOperation.modeSense6, page = block[2] & 0x3F
        guard block[3] == 0 || block[3] == 0xFF else { return .failed(.invalidField) }
        var body: [UInt8] = []
        for (code, bytes) in pages(isChangeable: block[2] & 0xC0 == 0x40) where page == code || page == 0x3F {
            body += [code, UInt8(bytes.count)] + bytes
        }
        guard !body.isEmpty else { return .failed(.invalidField) }
        var descriptor: [UInt8] = []
        if block[1] & 0x08 == 0 {
            descriptor = bigEndian(min(blockCount, 0xFFFF_FFFF), 4) + [0] + bigEndian(Self.blockByteCount, 3)
        }
        let specific: UInt8 = (isReadOnly ? 0x80 : 0) | 0x10  // write protected; DPO and FUA
        let length = UInt8(descriptor.count), rest = descriptor.count + body.count
        let header: [UInt8] =
            isShort
            ? [UInt8(clamping: rest + 3), 0, specific, length]
            : bigEndian(UInt64(rest + 6), 2) + [0, specific, 0, 0, 0, length]
        let limit = isShort ? Int(block[4]) : Int(block.field(7, 2))
        return .data(Array((header + descriptor + body).prefix(limit)))
    }

    mutating func modeSelect(_ block: CommandBlock, _ parameters: [UInt8]) -> SCSIAnswer {
        guard block[1] & 0x01 == 0 else { return .failed(.invalidField) }  // SP: nothing is saved
        guard !parameters.isEmpty else { return .good }
        let isShort = block.operation == SCSIOperation.modeSelect6, list = CommandBlock(parameters)
        let headerCount = isShort ? 4 : 8
        guard parameters.count >= headerCount else { return .failed(.parameterListLengthError) }
        var position = headerCount + (isShort ? Int(list[3]) : Int(list.field(6, 2)))
        var wanted = isWriteCacheEnabled
        while position < parameters.count {
            let code = list[position] & 0x3F, count = Int(list[position + 1])
            guard position + 2 + count <= parameters.count else { return .failed(.parameterListLengthError) }
            guard let page = pages(isChangeable: false).first(where: { $0.code == code }), page.bytes.count == count
            else {
                return .failed(.invalidParameter)
            }
            if code == 0x08 { wanted = list[position + 2] & 0x04 != 0 }
            position += 2 + count
        }
        let turnsOff = isWriteCacheEnabled && !wanted
        isWriteCacheEnabled = wanted
        // What the cache holds must not be less durable than the writes that follow.
        return turnsOff ? .work(.flush) : .good
    }
}
