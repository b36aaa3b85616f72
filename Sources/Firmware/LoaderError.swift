// Why a kernel could not be loaded: the file's fault, or the description's.

/// A kernel or initial RAM disk that cannot be started.
package struct LoaderError: Error, Sendable, CustomStringConvertible {
    /// "kernel", "initrd", "command line".
    package let subject: String
    package let reason: String

    package init(_ subject: String, _ reason: String) {
        self.subject = subject
        self.reason = reason
    }

    package var description: String { "load \(subject): \(reason) (caller)" }
}
