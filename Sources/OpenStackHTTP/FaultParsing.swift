// The error bodies of the services: Placement ("errors" list with a code), Neutron ("NeutronError"), Keystone ("error"),
// Glance (WebOb's JSON or HTML), and Nova's single-key objects.
import JSON

struct FaultBody: Equatable {
    var message: String
    var code: String?
    var requestID: String?

    static let lengthLimit = 2000

    init(_ bytes: [UInt8]) {
        let raw = String(decoding: bytes.prefix(4 * Self.lengthLimit), as: UTF8.self)
        message = Self.shorten(raw.hasPrefix("<") || raw.contains("<html") ? Self.withoutTags(raw) : raw)
        guard let json = try? JSONValue.parse(bytes, limits: JSONLimits(depth: 16, byteCount: 1 << 20)),
            let members = json.objectValue
        else { return }
        if let error = members["errors"]?.arrayValue?.first {
            take(message: error["detail"], code: error["code"])
            requestID = error["request_id"]?.stringValue
        } else if let error = members["NeutronError"] {
            take(message: error["message"] ?? error, code: error["type"])
        } else if let error = members["error"] {
            take(message: error["message"], code: error["title"])
        } else if members["message"] != nil {
            take(message: members["message"], code: members["title"])
        } else if members.count == 1, let (key, error) = members.first, error["message"] != nil {
            take(message: error["message"], code: .string(key))
        }
    }

    private mutating func take(message: JSONValue?, code: JSONValue?) {
        if let text = message?.stringValue { self.message = Self.shorten(text) }
        self.code = code?.stringValue
    }

    private static func shorten(_ text: String) -> String {
        let words = text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        return String(words.prefix(lengthLimit))
    }

    private static func withoutTags(_ html: String) -> String {
        var text = ""
        var isInTag = false
        for character in html {
            if character == "<" {
                isInTag = true
            } else if character == ">" {
                isInTag = false
                text.append(" ")
            } else if !isInTag {
                text.append(character)
            }
        }
        return text
    }
}
