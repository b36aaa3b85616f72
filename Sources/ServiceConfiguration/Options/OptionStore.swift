// All values that were written anywhere, by group and name, in the order that the last one wins: files as they are read,
// then the environment (OS_<GROUP>__<OPTION>), then the command line.
import Foundation

/// A value as it was written.
struct RawValue: Sendable, Equatable {
    let text: String
    let origin: OptionOrigin
}

struct OptionKey: Sendable, Hashable, CustomStringConvertible {
    let group: String
    let name: String

    var description: String { "[\(group)] \(name)" }
}

struct OptionStore: Sendable {
    private var values: [OptionKey: [RawValue]] = [:]
    private(set) var problems: [String] = []

    init(files: [String], environment: [String: String], overrides: [(group: String, name: String, value: String)]) {
        for path in files { read(path) }
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix("OS_") {
            let parts = name.dropFirst(3).components(separatedBy: "__")
            guard parts.count == 2 else { continue }
            let key = OptionKey(group: INIParser.normalizedGroup(parts[0]), name: parts[1].lowercased())
            values[key, default: []].append(RawValue(text: value, origin: .environment(name)))
        }
        for override in overrides {
            let key = OptionKey(group: override.group, name: override.name)
            values[key, default: []].append(RawValue(text: override.value, origin: .commandLine))
        }
    }

    /// All values of an option, the one that wins last; empty where nobody wrote any.
    func values(of key: OptionKey) -> [RawValue] { values[key] ?? [] }

    var keys: Set<OptionKey> { Set(values.keys) }

    private mutating func read(_ path: String) {
        let text: String
        do {
            text = try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            problems.append("\(path): cannot be read: \(error.localizedDescription)")
            return
        }
        let parsed = INIParser.parse(text, file: path)
        problems += parsed.problems
        for assignment in parsed.assignments {
            values[OptionKey(group: assignment.group, name: assignment.name), default: []].append(
                RawValue(text: assignment.value, origin: .file(path, line: assignment.line)))
        }
    }
}
