// Python's "%(key)s" templates, as oslo.log's format options have them. Only the forms they use are known: s, d, 0Nd.

/// A template, parsed once.
struct LogFormat: Sendable {
    private enum Piece: Sendable {
        case text(String)
        case field(String, width: Int)
    }
    private let pieces: [Piece]

    init(_ template: String) {
        var pieces: [Piece] = []
        var text = ""
        var rest = template[...]
        while let character = rest.popFirst() {
            guard character == "%" else {
                text.append(character)
                continue
            }
            if rest.first == "%" {
                rest.removeFirst()
                text.append("%")
            } else if let (key, width) = Self.takeField(&rest) {
                if !text.isEmpty { pieces.append(.text(text)) }
                text = ""
                pieces.append(.field(key, width: width))
            } else {
                text.append("%")
            }
        }
        if !text.isEmpty { pieces.append(.text(text)) }
        self.pieces = pieces
    }

    /// Fields without a value are "-", as oslo.log writes them.
    func render(_ value: (String) -> String?) -> String {
        var line = ""
        for piece in pieces {
            switch piece {
            case .text(let text): line += text
            case .field(let key, let width):
                let text = value(key) ?? "-"
                line += String(repeating: "0", count: max(0, width - text.utf8.count)) + text
            }
        }
        return line
    }

    private static func takeField(_ rest: inout Substring) -> (key: String, width: Int)? {
        guard rest.first == "(", let end = rest.firstIndex(of: ")") else { return nil }
        let key = rest[rest.index(after: rest.startIndex)..<end]
        let form = rest[rest.index(after: end)...]
        let digits = form.prefix(while: \.isNumber)
        guard let kind = form.dropFirst(digits.count).first, kind == "s" || kind == "d" else { return nil }
        rest = form.dropFirst(digits.count + 1)
        return (String(key), digits.first == "0" ? min(Int(digits) ?? 0, 20) : 0)
    }
}
