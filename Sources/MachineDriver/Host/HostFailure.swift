// A system call that failed where it should not have, and what a tenant may read of it.
import ComputeDriver
import Glibc

/// A host fault with its errno; becomes a `DriverError` where an operation on an instance meets it.
struct HostFailure: Error, Sendable, CustomStringConvertible {
    /// The step, for example "create".
    let operation: String
    /// What it was done to, with its path.
    let subject: String
    let errno: CInt
    /// What the operator can do about it; empty where nothing is known.
    let remedy: String

    init(_ operation: String, _ subject: String, errno: CInt = Glibc.errno, remedy: String = "") {
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.remedy = remedy
    }

    var description: String {
        "\(operation) \(subject): \(Self.words(errno)) (errno \(errno))" + (remedy.isEmpty ? "" : "; \(remedy)")
    }

    static func words(_ errno: CInt) -> String {
        var buffer = [CChar](repeating: 0, count: 128)
        // SAFETY: strerror_r (POSIX) writes at most `count` bytes, terminated; the buffer is ours.
        guard unsafe strerror_r(errno, &buffer, buffer.count) == 0 else { return "unknown error" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    var isOutOfSpace: Bool { errno == ENOSPC || errno == EDQUOT }

    /// The reason without the host's paths.
    var tenantReason: String {
        switch errno {
        case ENOSPC: "there is no space left on the compute host's disk"
        case EDQUOT: "the disk quota of the compute host is used up"
        case EROFS: "the compute host's file system is read-only"
        case EIO: "the compute host's disk reported an input/output error"
        case EFBIG: "the disk is larger than the compute host's file system allows"
        case ENOMEM: "the compute host is out of memory"
        case EMFILE, ENFILE: "the compute host has no file descriptors left"
        default: "of a fault on the compute host; its operator finds the details in the log"
        }
    }
}

extension DriverError {
    /// `error` as the failure of `task` ("create the disk of instance …"); an error that says enough is passed on as it is.
    init(_ error: any Error, while task: String, novaClass: String = "InstanceDeployFailure") {
        switch error {
        case let error as DriverError: self = error
        case let failure as HostFailure:
            self.init(
                novaClass: failure.isOutOfSpace ? "ComputeResourcesUnavailable" : novaClass,
                tenantMessage: "Could not \(task), because \(failure.tenantReason).",
                operatorMessage: "could not \(task): \(failure)", fault: .host)
        default:
            self.init(
                novaClass: novaClass, tenantMessage: "Could not \(task), because of a fault on the compute host.",
                operatorMessage: "could not \(task): \(error)", fault: .host)
        }
    }
}
