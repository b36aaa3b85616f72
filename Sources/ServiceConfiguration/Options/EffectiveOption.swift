// One option as the service obeys it, for operators' eyes: secrets are masked as oslo.config's log_opt_values masks them.
import Foundation

package struct EffectiveOption: Sendable, Equatable {
    package let group: String
    package let name: String
    /// Never a secret.
    package let value: String
    package let origin: OptionOrigin

    init(group: String, name: String, text: String, origin: OptionOrigin) {
        self.group = group
        self.name = name
        self.origin = origin
        switch name {
        case let name where name.contains("password") || name.contains("secret"): value = text.isEmpty ? "" : "****"
        case "transport_url": value = Self.withoutPasswords(text)
        default: value = text
        }
    }

    /// "rabbit://user:****@host:5672,user:****@other/vhost"
    static func withoutPasswords(_ url: String) -> String {
        guard let scheme = url.range(of: "://") else { return url.contains("@") ? "****" : url }
        // A password with an unescaped "@" must not be cut in the middle: everything up to the last one of a host is hidden.
        let parts = url[scheme.upperBound...].split(separator: ",", omittingEmptySubsequences: false).map { part in
            guard let at = part.lastIndex(of: "@") else { return String(part) }
            let account = part[..<at]
            guard let colon = account.firstIndex(of: ":") else { return String(part) }
            return account[..<colon] + ":****" + part[at...]
        }
        return url[..<scheme.upperBound] + parts.joined(separator: ",")
    }
}
