// Which versions of an object a reader takes (contract §2.4): the same major number and a minor one no higher than its own.
// A version in three parts is tried again with its first two.

/// "2.7" or "2.7.1".
package struct ObjectVersion: Sendable, Equatable, Comparable, CustomStringConvertible {
    package let major: Int
    package let minor: Int
    package let patch: Int?

    package init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3, let major = Int(parts[0]), let minor = Int(parts[1]), major >= 0,
            minor >= 0
        else { return nil }
        if parts.count == 3 {
            guard let patch = Int(parts[2]), patch >= 0 else { return nil }
            self.patch = patch
        } else {
            patch = nil
        }
        self.major = major
        self.minor = minor
    }

    /// True where a program that implements this version can read `received`.
    package func canRead(_ received: ObjectVersion) -> Bool {
        received.major == major && received.minor <= minor
    }

    package static func < (left: ObjectVersion, right: ObjectVersion) -> Bool {
        (left.major, left.minor, left.patch ?? 0) < (right.major, right.minor, right.patch ?? 0)
    }

    package var description: String { patch.map { "\(major).\(minor).\($0)" } ?? "\(major).\(minor)" }
}
