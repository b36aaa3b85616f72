// What a failed system call tells its reader: the operation, its subject, the errno.

/// A host fault: a system call that failed where it should not have.
package struct HostError: Error, Sendable, CustomStringConvertible {
    /// The call or step, for example "mmap guest memory".
    package let operation: String
    /// What it was done to: a path, a descriptor, a size.
    package let subject: String
    /// The errno the kernel gave.
    package let errno: CInt
    /// What the operator can do about it; empty where nothing is known.
    package let remedy: String

    package init(_ operation: String, subject: String, errno: CInt, remedy: String = "") {
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.remedy = remedy
    }

    package var description: String {
        let reason = errorName(errno)
        return "\(operation) \(subject): \(reason) (host)" + (remedy.isEmpty ? "" : ": \(remedy)")
    }
}
