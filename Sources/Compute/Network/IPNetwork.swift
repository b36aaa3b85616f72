// IP addresses and networks as text: which version, which network, which mask. Enough for the network information of an
// instance, where addresses come from Neutron as text and go out as text. Anything that is no address is nil.

/// An IPv4 or IPv6 address.
struct IPAddress: Sendable, Equatable {
    /// 4 or 16 bytes, most significant first.
    let bytes: [UInt8]

    var version: Int { bytes.count == 4 ? 4 : 6 }

    init?(_ text: String) {
        guard let bytes = text.contains(":") ? Self.version6(text) : Self.version4(text) else { return nil }
        self.bytes = bytes
    }

    fileprivate init(bytes: [UInt8]) { self.bytes = bytes }

    /// RFC 5952 for IPv6: lower case, the longest run of zeros as "::".
    var text: String {
        if bytes.count == 4 { return bytes.map { String($0) }.joined(separator: ".") }
        let groups = stride(from: 0, to: 16, by: 2).map { Int(bytes[$0]) << 8 | Int(bytes[$0 + 1]) }
        var best = 0..<0
        var start = 0
        while start < groups.count {
            var end = start
            while end < groups.count, groups[end] == 0 { end += 1 }
            if end - start > max(best.count, 1) { best = start..<end }
            start = max(end, start + 1)
        }
        let words = groups.map { String($0, radix: 16) }
        guard !best.isEmpty else { return words.joined(separator: ":") }
        return words[..<best.lowerBound].joined(separator: ":") + "::" + words[best.upperBound...].joined(separator: ":")
    }

    private static func version4(_ text: String) -> [UInt8]? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var bytes: [UInt8] = []
        for part in parts {
            guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let byte = UInt8(part)
            else { return nil }
            bytes.append(byte)
        }
        return bytes
    }

    private static func version6(_ text: String) -> [UInt8]? {
        // The address may end in dotted decimal; that part stands for two groups.
        var head = Substring(text)
        var tail: [UInt8] = []
        if text.contains(".") {
            guard let colon = text.lastIndex(of: ":"), let last = version4(String(text[text.index(after: colon)...]))
            else { return nil }
            tail = last
            head = text[...colon]
            // "::1.2.3.4" keeps both colons, "1:2.3.4.5" loses its one.
            if !head.hasSuffix("::") { head = head.dropLast() }
        }
        let total = (16 - tail.count) / 2
        guard let gap = firstGap(in: head) else {
            guard let groups = groups(head), groups.count == total else { return nil }
            return bytes(groups) + tail
        }
        let rest = head[head.index(gap, offsetBy: 2)...]
        guard firstGap(in: rest) == nil, !rest.hasPrefix(":"), let before = groups(head[..<gap]),
            let after = groups(rest), before.count + after.count < total
        else { return nil }
        return bytes(before + Array(repeating: 0, count: total - before.count - after.count) + after) + tail
    }

    private static func firstGap(in text: Substring) -> Substring.Index? {
        var last: Substring.Index?
        for index in text.indices {
            if text[index] == ":" {
                if let last { return last }
                last = index
            } else {
                last = nil
            }
        }
        return nil
    }

    private static func groups(_ text: Substring) -> [UInt16]? {
        if text.isEmpty { return [] }
        var groups: [UInt16] = []
        for part in text.split(separator: ":", omittingEmptySubsequences: false) {
            guard (1...4).contains(part.utf8.count), part.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }),
                let group = UInt16(part, radix: 16)
            else { return nil }
            groups.append(group)
        }
        return groups
    }

    private static func bytes(_ groups: [UInt16]) -> [UInt8] {
        groups.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
    }
}

/// "10.0.0.0/24", "2001:db8::/64"; an address alone is a network of one.
struct IPNetwork: Sendable, Equatable {
    let address: IPAddress
    let prefixLength: Int

    init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let address = IPAddress(String(first)) else { return nil }
        let width = address.bytes.count * 8
        var length = width
        if parts.count == 2 {
            guard parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(parts[1]), number <= width
            else { return nil }
            length = number
        }
        self.address = address
        prefixLength = length
    }

    var version: Int { address.version }
    var netmask: IPAddress { IPAddress(bytes: maskBytes) }
    /// The first address, all host bits zero.
    var network: IPAddress { IPAddress(bytes: zip(address.bytes, maskBytes).map { $0 & $1 }) }

    func contains(_ other: IPAddress) -> Bool {
        other.version == version && zip(other.bytes, maskBytes).map { $0 & $1 } == network.bytes
    }

    private var maskBytes: [UInt8] {
        address.bytes.indices.map { index in
            let bits = min(max(prefixLength - index * 8, 0), 8)
            return UInt8(truncatingIfNeeded: 0xFF00 >> bits)
        }
    }
}
