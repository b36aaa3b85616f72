// What a disk image that cannot be opened, changed or checked tells its reader. Requests of a guest get an errno instead.
import Glibc
package import HostSystem

/// A fault met in an image, with whose fault it is.
package struct ImageError: Error, Sendable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        /// The file breaks its own format: the image's maker or a damaged disk is at fault.
        case malformed
        /// The format allows it, this program does not do it.
        case unsupported
        /// The caller asked for what must not be done, or left something out.
        case refused
        /// No room in the file, its tables or its counters.
        case full
        /// A system call failed.
        case host(errno: CInt)
    }

    package let code: Code
    /// The step, for example "read L2 table".
    package let operation: String
    /// The image, and where in it.
    package let subject: String
    package let reason: String
    /// What the operator can do about it; empty where nothing is known.
    package let remedy: String

    package init(_ code: Code, _ operation: String, subject: String, reason: String = "", remedy: String = "") {
        self.code = code
        self.operation = operation
        self.subject = subject
        self.reason = reason
        self.remedy = remedy
    }

    package init(_ error: HostError) {
        self.init(
            .host(errno: error.errno), error.operation, subject: error.subject, reason: errorName(error.errno),
            remedy: error.remedy)
    }

    /// What a guest's request ends with.
    package var errno: CInt {
        switch code {
        case .malformed: EIO
        case .unsupported: ENOTSUP
        case .refused: EPERM
        case .full: ENOSPC
        case .host(let errno): errno
        }
    }

    private var fault: String {
        switch code {
        case .malformed: "image"
        case .unsupported: "not supported"
        case .refused: "caller"
        case .full: "no room"
        case .host: "host"
        }
    }

    package var description: String {
        "\(operation) \(subject): " + (reason.isEmpty ? "" : reason + " ") + "(\(fault))"
            + (remedy.isEmpty ? "" : ": \(remedy)")
    }
}
