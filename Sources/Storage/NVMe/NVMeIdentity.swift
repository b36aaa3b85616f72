// The data structures in which a controller and its namespace say what they are (NVM Express 1.4 §5.15, §5.14.1), and the log pages
// a host reads. Offsets are the specification's.
import MachineCore

struct NVMeIdentity: Sendable {
    let identity: DriveIdentity
    let isReadOnly: Bool

    private struct Page {
        var bytes: [UInt8]

        init(_ byteCount: Int = 4096) { bytes = [UInt8](repeating: 0, count: byteCount) }
        mutating func put(_ value: UInt64, at offset: Int, count: Int) {
            for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        }
        mutating func put(_ value: [UInt8], at offset: Int) {
            bytes.replaceSubrange(offset..<(offset + value.count), with: value)
        }
    }

    /// CNS 01h.
    var controller: [UInt8] {
        var page = Page()
        page.put(0x1B36, at: 0, count: 2)  // VID
        page.put(0x1AF4, at: 2, count: 2)  // SSVID
        page.put(DriveIdentity.padded(identity.serial, 20), at: 4)
        page.put(DriveIdentity.padded(identity.model, 40), at: 24)
        page.put(DriveIdentity.padded(identity.firmware, 8), at: 64)
        page.put(6, at: 72, count: 1)  // RAB
        page.put(UInt64(NVMeRegions.transferLimitExponent), at: 77, count: 1)  // MDTS
        page.put(UInt64(NVMeRegister.versionNumber), at: 80, count: 4)
        page.put(1 << 8, at: 92, count: 4)  // OAES: namespace attribute notices
        page.put(1, at: 111, count: 1)  // CNTRLTYPE: I/O
        page.put(3, at: 258, count: 1)  // ACL: four Aborts
        page.put(UInt64(NVMeController.eventRequestLimit - 1), at: 259, count: 1)  // AERL
        page.put(0x03, at: 260, count: 1)  // FRMW: one slot, read only
        page.put(343, at: 266, count: 2)  // WCTEMP, kelvin
        page.put(373, at: 268, count: 2)  // CCTEMP
        page.put(0x66, at: 512, count: 1)  // SQES: 64 bytes
        page.put(0x44, at: 513, count: 1)  // CQES: 16 bytes
        page.put(1, at: 516, count: 4)  // NN
        page.put(0x0C, at: 520, count: 2)  // ONCS: Dataset Management, Write Zeroes
        page.put(0x07, at: 525, count: 1)  // VWC: present; Flush of all namespaces
        // SUBNQN as hosts make it up for controllers without one (NVMe over Fabrics 1.0 §4.1 of older controllers).
        let name = Array("nqn.2014.08.org.nvmexpress:1b361af4".utf8)
        page.put(name + DriveIdentity.padded(identity.serial, 20) + DriveIdentity.padded(identity.model, 40), at: 768)
        page.put(2500, at: 2048, count: 2)  // PSD0: 25 W
        page.put(0x10, at: 2052, count: 4)
        page.put(0x04, at: 2056, count: 4)
        return page.bytes
    }

    /// CNS 00h.
    func namespace(blockCount: UInt64) -> [UInt8] {
        var page = Page()
        for offset in [0, 8, 16] { page.put(blockCount, at: offset, count: 8) }  // NSZE, NCAP, NUSE
        page.put(isReadOnly ? 1 : 0, at: 99, count: 1)  // NSATTR: write protected
        page.put(bigEndian(identity.worldWideName, 8), at: 120)  // EUI64
        page.put(9 << 16, at: 128, count: 4)  // LBAF0: blocks of 512 bytes, no metadata
        return page.bytes
    }

    /// CNS 02h: the namespaces above `identifier`.
    func activeNamespaces(above identifier: UInt32) -> [UInt8] {
        var page = Page()
        if identifier < 1 { page.put(1, at: 0, count: 4) }
        return page.bytes
    }

    /// CNS 03h: EUI64, and the serial number where it is a UUID.
    var namespaceDescriptors: [UInt8] {
        var page = Page(), descriptors: [UInt8] = []
        if identity.worldWideName != 0 { descriptors += [1, 8, 0, 0] + bigEndian(identity.worldWideName, 8) }
        let digits = identity.serial.utf8.filter { $0 != UInt8(ascii: "-") }.map { hexadecimal($0) }
        if digits.count == 32, !digits.contains(nil) {
            let values = digits.compactMap { $0 }
            descriptors += [3, 16, 0, 0] + (0..<16).map { values[2 * $0] << 4 | values[2 * $0 + 1] }
        }
        page.put(descriptors, at: 0)
        return page.bytes
    }

    private func hexadecimal(_ character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    /// Log pages 01h (errors: none), 02h (SMART / health) and 03h (firmware slots); nil for others.
    func log(_ identifier: UInt8, counters: DeviceCounters.Values) -> [UInt8]? {
        switch identifier {
        case 0x01: return Page(64).bytes
        case 0x02:
            var page = Page(512)
            page.put(303, at: 1, count: 2)  // composite temperature, kelvin
            page.put(100, at: 3, count: 1)  // available spare, percent
            page.put(10, at: 4, count: 1)
            // In thousands of 512 bytes, rounded up.
            page.put((counters.readBytes / 512 + 999) / 1000, at: 32, count: 8)
            page.put((counters.writeBytes / 512 + 999) / 1000, at: 48, count: 8)
            page.put(counters.readRequests, at: 64, count: 8)
            page.put(counters.writeRequests, at: 80, count: 8)
            page.put(1, at: 112, count: 8)  // power cycles
            return page.bytes
        case 0x03:
            var page = Page(512)
            page.put(1, at: 0, count: 1)  // AFI: slot 1
            page.put(DriveIdentity.padded(identity.firmware, 8), at: 8)
            return page.bytes
        default: return nil
        }
    }
}
