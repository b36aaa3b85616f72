// INQUIRY's answers that all units share (SPC-3 §6.4 and §7.6, vital product data).

struct InquiryData {
    let peripheralDeviceType: UInt8
    let isRemovable: Bool
    let identity: DriveIdentity

    /// The answer to `block`. `pages`: vital product data of the unit's own, by page code, without their headers.
    func answer(_ block: CommandBlock, pages: [(code: UInt8, body: [UInt8])] = []) -> SCSIAnswer {
        let limit = Int(block.field(3, 2))
        guard block[1] & 1 != 0 else {
            return block[2] == 0 ? .data(Array(standard.prefix(limit))) : .failed(.invalidField)
        }
        var all = pages
        all.append((0x80, DriveIdentity.padded(identity.serial, min(20, max(1, identity.serial.utf8.count)))))
        all.append((0x83, designators))
        all.append((0x00, ([0x00] + all.map(\.code)).sorted()))
        guard let page = all.first(where: { $0.code == block[2] }) else { return .failed(.invalidField) }
        return .data(
            Array(
                ([peripheralDeviceType, page.code] + bigEndian(UInt64(page.body.count), 2) + page.body).prefix(limit)))
    }

    private var standard: [UInt8] {
        var data: [UInt8] = [
            // SPC-3, response format 2, 31 bytes follow, command queueing.
            peripheralDeviceType, isRemovable ? 0x80 : 0, 0x05, 0x02, 31, 0, 0, 0x02,
        ]
        data += DriveIdentity.padded("APUS", 8)
        data += DriveIdentity.padded(
            identity.model.hasPrefix("APUS ") ? String(identity.model.dropFirst(5)) : identity.model, 16)
        data += DriveIdentity.padded(identity.firmware, 4)
        return data
    }

    /// Device identification: a name of ours, and the world wide name where there is one.
    private var designators: [UInt8] {
        let text = DriveIdentity.padded("APUS", 8) + Array(identity.serial.utf8.prefix(20))
        var bytes: [UInt8] = [0x02, 0x01, 0, UInt8(text.count)] + text  // ASCII, T10 vendor
        if identity.worldWideName != 0 {
            bytes += [0x01, 0x03, 0, 8] + bigEndian(identity.worldWideName, 8)  // binary, NAA
        }
        return bytes
    }
}
