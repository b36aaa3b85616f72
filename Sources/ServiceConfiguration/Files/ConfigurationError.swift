// What is wrong with a configuration: every problem found, one line each, so that an operator mends them in one go.

/// Where a value was written.
package enum OptionOrigin: Sendable, Hashable, CustomStringConvertible {
    case file(String, line: Int)
    case environment(String)
    case commandLine
    case preset

    package var description: String {
        switch self {
        case .file(let path, let line): "\(path):\(line)"
        case .environment(let name): "environment variable \(name)"
        case .commandLine: "command line"
        case .preset: "default"
        }
    }
}

/// A configuration that the service cannot start with.
package struct ConfigurationError: Error, Sendable, CustomStringConvertible {
    /// One sentence each: "/etc/nova/nova.conf:12: [DEFAULT] report_interval: "ten" is not an integer".
    package let problems: [String]

    package init(problems: [String]) { self.problems = problems }

    package var description: String {
        "read configuration: " + problems.joined(separator: "\n  ") + " (caller)"
    }
}
