// Why a text is not JSON, and where.

/// A text that is not JSON, or exceeds a bound the caller set.
package struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Offset of the offending byte.
    package let offset: Int
    package let reason: String

    package init(offset: Int, reason: String) {
        self.offset = offset
        self.reason = reason
    }

    package var description: String { "parse JSON: \(reason) at byte \(offset) (peer)" }
}
