// The INI dialect of oslo.config (oslo_config.iniparser): "key = value" or "key: value", lines that begin with white space go
// on with the value before, blank lines end it, "#" and ";" in the first column are comments, one pair of quotes is dropped.

struct INIAssignment: Sendable, Equatable {
    let group: String
    let name: String
    let value: String
    let line: Int
}

enum INIParser {
    /// The assignments of a file in their order, and what is wrong with the file's lines.
    static func parse(_ text: String, file: String) -> (assignments: [INIAssignment], problems: [String]) {
        var assignments: [INIAssignment] = []
        var problems: [String] = []
        var group: String?
        var open: (name: String, values: [String], line: Int)?

        func close() {
            defer { open = nil }
            guard let open else { return }
            guard let group else {
                problems.append("\(file):\(open.line): \"\(open.name)\" stands before the first section")
                return
            }
            assignments.append(
                INIAssignment(
                    group: group, name: open.name, value: open.values.joined(separator: "\n"), line: open.line))
        }

        let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }
        for (index, line) in lines.enumerated() {
            let number = index + 1
            let trimmed = trimmingEnd(line)
            guard let first = trimmed.first else {
                close()
                continue
            }
            if first == " " || first == "\t" {
                guard open != nil else {
                    problems.append("\(file):\(number): a line that begins with a blank continues nothing")
                    continue
                }
                open?.values.append(String(trimmed.drop(while: \.isWhitespace)))
                continue
            }
            close()
            switch first {
            case "#", ";":
                continue
            case "[":
                guard trimmed.last == "]", trimmed.count > 2 else {
                    problems.append("\(file):\(number): \"\(trimmed)\" is no section header")
                    continue
                }
                group = normalizedGroup(String(trimmed.dropFirst().dropLast()))
            default:
                guard let separator = trimmed.firstIndex(where: { $0 == "=" || $0 == ":" }) else {
                    problems.append("\(file):\(number): no \"=\" or \":\" after \"\(trimmed)\"")
                    continue
                }
                let name = trimmingEnd(trimmed[..<separator])
                guard !name.isEmpty else {
                    problems.append("\(file):\(number): no option name before \"\(trimmed[separator])\"")
                    continue
                }
                let value = trimmed[trimmed.index(after: separator)...].drop(while: \.isWhitespace)
                open = (normalizedName(String(name)), [unquoted(value)], number)
            }
        }
        close()
        return (assignments, problems)
    }

    /// "-" and "_" are equal in option names.
    static func normalizedName(_ name: String) -> String {
        String(name.map { $0 == "-" ? "_" : $0 })
    }

    /// Groups are compared in lower case; DEFAULT is the one in capitals.
    static func normalizedGroup(_ name: String) -> String {
        name.uppercased() == "DEFAULT" ? "DEFAULT" : name.lowercased()
    }

    private static func trimmingEnd(_ text: Substring) -> Substring {
        var text = text
        while let last = text.last, last.isWhitespace { text = text.dropLast() }
        return text
    }

    private static func unquoted(_ value: Substring) -> String {
        guard value.count > 1, let first = value.first, first == value.last, first == "\"" || first == "'" else {
            return String(value)
        }
        return String(value.dropFirst().dropLast())
    }
}
