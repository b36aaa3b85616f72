// `[DEFAULT] transport_url`: rabbit://user:password@host1:5672,user:password@host2:5672/vhost?option=value
package import AMQP

/// A URL that is not one of oslo.messaging's. Never quotes the URL: there is a password in it.
package struct TransportURLError: Error, Sendable, Equatable, CustomStringConvertible {
    package var reason: String
    package var description: String { "read transport_url: \(reason) (caller)" }
}

package struct TransportURL: Sendable, Equatable {
    package var brokers: [BrokerAddress]
    /// Override options of `[oslo_messaging_rabbit]`.
    package var query: [String: String]

    package init(_ text: String) throws(TransportURLError) {
        guard let separator = Self.range(of: "://", in: text) else { throw TransportURLError(reason: "no scheme") }
        let scheme = text[..<separator.lowerBound]
        guard scheme == "rabbit" || scheme == "kombu" else {
            throw TransportURLError(reason: "scheme \(scheme), but only rabbit is served")
        }
        var rest = text[separator.upperBound...]
        query = [:]
        if let mark = rest.firstIndex(of: "?") {
            for pair in rest[rest.index(after: mark)...].split(separator: "&") {
                let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                query[try Self.decode(parts[0])] = parts.count > 1 ? try Self.decode(parts[1]) : ""
            }
            rest = rest[..<mark]
        }
        var virtualHost = "/"
        if let slash = rest.firstIndex(of: "/") {
            let path = try Self.decode(rest[rest.index(after: slash)...])
            if !path.isEmpty { virtualHost = path }
            rest = rest[..<slash]
        }
        brokers = []
        for host in rest.split(separator: ",", omittingEmptySubsequences: false) {
            brokers.append(try Self.broker(host, virtualHost))
        }
    }

    private static func broker(_ text: Substring, _ virtualHost: String) throws(TransportURLError) -> BrokerAddress {
        var broker = BrokerAddress(host: "localhost", virtualHost: virtualHost)
        var address = text
        if let at = text.lastIndex(of: "@") {
            address = text[text.index(after: at)...]
            let account = text[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let user = try decode(account[0])
            if !user.isEmpty { broker.user = user }
            if account.count > 1 { broker.password = try decode(account[1]) }
        }
        var port: Substring = ""
        if address.hasPrefix("[") {
            guard let end = address.firstIndex(of: "]") else {
                throw TransportURLError(reason: "no ] after an IPv6 address")
            }
            broker.host = String(address[address.index(after: address.startIndex)..<end])
            let after = address[address.index(after: end)...]
            guard after.isEmpty || after.hasPrefix(":") else {
                throw TransportURLError(reason: "something between ] and the port")
            }
            port = after.dropFirst()
        } else {
            let parts = address.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            if let host = parts.first, !host.isEmpty { broker.host = String(host) }
            if parts.count > 1 { port = parts[1] }
        }
        if !port.isEmpty {
            guard let number = Int(port), (1...65_535).contains(number) else {
                throw TransportURLError(reason: "a port that is no number from 1 to 65535")
            }
            broker.port = number
        }
        return broker
    }

    private static func range(of word: String, in text: String) -> Range<String.Index>? {
        var start = text.startIndex
        while start < text.endIndex {
            if text[start...].hasPrefix(word) { return start..<text.index(start, offsetBy: word.count) }
            start = text.index(after: start)
        }
        return nil
    }

    /// Percent-decoding.
    private static func decode(_ text: Substring) throws(TransportURLError) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
                throw TransportURLError(reason: "a % without two hexadecimal digits")
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        guard let decoded = String(validating: bytes, as: UTF8.self) else {
            throw TransportURLError(reason: "percent-encoded bytes that are not UTF-8")
        }
        return decoded
    }
}
