// Why a machine could not be given what it starts from: the file's fault, or the description's.

/// A kernel, RAM disk, firmware or disk image that cannot be used.
package struct LoaderError: Error, Sendable, CustomStringConvertible {
    /// "kernel", "initrd", "command line", "the firmware".
    package let subject: String
    package let reason: String

    package init(_ subject: String, _ reason: String) {
        self.subject = subject
        self.reason = reason
    }

    package var description: String { "load \(subject): \(reason) (caller)" }
}
