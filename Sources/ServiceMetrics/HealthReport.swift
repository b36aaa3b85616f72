// What a probe is told: each check by name, and why it fails.

package struct HealthReport: Sendable, Equatable {
    package struct Check: Sendable, Equatable {
        package var name: String
        /// Nil where the check passes.
        package var failure: String?

        package init(_ name: String, failure: String? = nil) {
            self.name = name
            self.failure = failure
        }
    }
    package var checks: [Check]

    package init(_ checks: [Check]) { self.checks = checks }

    package var isHealthy: Bool { checks.allSatisfy { $0.failure == nil } }

    /// "ok", or the failed checks; `isVerbose` names those that pass too (the form of Kubernetes' own components).
    package func text(isVerbose: Bool) -> String {
        var lines = checks.compactMap { check in
            check.failure.map { "[-]\(check.name) failed: \(Self.oneLine($0))" }
                ?? (isVerbose ? "[+]\(check.name) ok" : nil)
        }
        lines.append(isHealthy ? "ok" : "not ready")
        return lines.joined(separator: "\n") + "\n"
    }

    private static func oneLine(_ text: String) -> String {
        String(text.unicodeScalars.map { $0.value < 0x20 ? " " : Character($0) })
    }
}
