// What becomes of a build that failed (RPC reference §5.1, failure mapping).

/// The three ways in which a build ends without a server.
package enum BuildFailure: Error, Sendable {
    /// The user deleted it, or its row is gone: nothing to tell anybody.
    case disappeared
    /// Another host may succeed.
    case reschedule(NovaException, byPolicy: Bool)
    /// No host would.
    case abort(NovaException)

    package init(_ error: any Error, isDeleting: Bool) {
        if let failure = error as? BuildFailure {
            self = failure
            return
        }
        if isDeleting, error is CancellationError {
            self = .disappeared
            return
        }
        let exception = NovaException(error)
        switch exception.className {
        case "InstanceNotFound", "UnexpectedDeletingTaskStateError": self = .disappeared
        case "GroupAffinityViolation", "RescheduledByPolicyException": self = .reschedule(exception, byPolicy: true)
        case let name where Self.aborting.contains(name): self = .abort(exception)
        default: self = .reschedule(exception, byPolicy: false)
        }
    }

    /// As `init`, but whatever would be tried elsewhere is aborted: for steps whose failure another host would repeat.
    package static func aborting(_ reason: String, _ error: any Error, isDeleting: Bool) -> BuildFailure {
        switch BuildFailure(error, isDeleting: isDeleting) {
        case .disappeared: return .disappeared
        case .abort(let exception), .reschedule(let exception, _):
            // The end of the service says nothing about the request.
            if exception.cause is CancellationError { return .reschedule(exception, byPolicy: false) }
            return .abort(
                NovaException(
                    exception.className, "\(reason): \(exception.message)", code: exception.code,
                    module: exception.module, details: "\(reason): \(exception.details)", keywords: exception.keywords,
                    cause: exception.cause ?? exception))
        }
    }

    package static let aborting: Set<String> = [
        "BuildAbortException", "NoMoreFixedIps", "ExternalNetworkAttachForbidden", "VirtualInterfaceCreateException",
        "VirtualInterfaceMacAddressException", "FixedIpInvalidOnHost", "UnableToAutoAllocateNetwork",
        "NetworksWithQoSPolicyNotSupported", "FlavorDiskTooSmall", "FlavorDiskSmallerThanImage",
        "FlavorDiskSmallerThanMinDisk", "FlavorMemoryTooSmall", "ImageNotActive", "ImageUnacceptable",
        "InvalidDiskInfo", "InvalidDiskFormat", "SignatureVerificationError", "CertificateValidationFailed",
        "VolumeEncryptionNotSupported", "InvalidInput", "RequestedVRamTooHigh", "Base64Exception",
    ]
}
