// The identifiers of a machine, checked where they are read.

/// A UUID (RFC 9562) by its 16 bytes in the order they are written.
package struct MachineUUID: Sendable, Hashable, CustomStringConvertible {
    package let bytes: [UInt8]

    /// The nil UUID: nobody's.
    package static let zero = MachineUUID(bytes: [UInt8](repeating: 0, count: 16))

    private init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// The canonical form with dashes, or 32 digits without.
    package init?(_ text: String) {
        let characters = Array(text.utf8)
        var bytes: [UInt8] = []
        var position = 0
        while position < characters.count {
            if characters.count == 36, [8, 13, 18, 23].contains(position) {
                guard characters[position] == UInt8(ascii: "-") else { return nil }
                position += 1
                continue
            }
            guard position + 1 < characters.count, let high = hexadecimal(characters[position]),
                let low = hexadecimal(characters[position + 1])
            else { return nil }
            bytes.append(high << 4 | low)
            position += 2
        }
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }

    package var description: String {
        var text = ""
        for (index, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(index) { text += "-" }
            text += hexadecimalText(byte)
        }
        return text
    }
}

/// A station's Ethernet address: six bytes, no group address.
package struct MACAddress: Sendable, Hashable, CustomStringConvertible {
    package let bytes: [UInt8]

    /// Six pairs of digits with colons between.
    package init?(_ text: String) {
        let parts = text.utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard parts.count == 6 else { return nil }
        var bytes: [UInt8] = []
        for part in parts {
            let digits = Array(part)
            guard digits.count == 2, let high = hexadecimal(digits[0]), let low = hexadecimal(digits[1]) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        guard bytes[0] & 1 == 0 else { return nil }
        self.bytes = bytes
    }

    package var description: String { bytes.map(hexadecimalText).joined(separator: ":") }
}

private func hexadecimal(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
    default: nil
    }
}

private func hexadecimalText(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
}
