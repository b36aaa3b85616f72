// The exceptions this service raises by itself, each with the words a tenant reads. Names and keywords are Nova's.
import Glance
import JSON
import OpenStackHTTP

extension NovaException {
    package static func invalidArgument(_ name: String, _ reason: String) -> NovaException {
        NovaException("TypeError", "Argument \(name) cannot be used: \(reason)", module: "builtins")
    }

    package static func incompatibleObject(_ name: String, _ reason: String) -> NovaException {
        NovaException(
            "IncompatibleObjectVersion", "Argument \(name) cannot be used: \(reason)",
            module: "oslo_versionedobjects.exception")
    }

    package static func instanceNotFound(_ uuid: String) -> NovaException {
        NovaException("InstanceNotFound", "Instance \(uuid) could not be found.", keywords: ["instance_id": .string(uuid)])
    }

    package static func instanceInvalidState(
        _ uuid: String, attribute: String, state: String, method: String
    ) -> NovaException {
        NovaException(
            "InstanceInvalidState",
            "Instance \(uuid) in \(attribute) \(state). Cannot \(method) while the instance is in this state.",
            keywords: [
                "instance_uuid": .string(uuid), "attr": .string(attribute), "state": .string(state),
                "method": .string(method),
            ])
    }

    /// The build cannot succeed here or elsewhere.
    package static func buildAbort(_ uuid: String, _ reason: String, cause: NovaException? = nil) -> NovaException {
        NovaException(
            "BuildAbortException", "Build of instance \(uuid) aborted: \(reason)",
            details: "build aborted: \(cause.map { "\(reason) (\($0.className): \($0.details))" } ?? reason)",
            keywords: ["instance_uuid": .string(uuid), "reason": .string(reason)], cause: cause)
    }

    /// The build failed here and may succeed elsewhere.
    package static func rescheduled(_ uuid: String, byPolicy: Bool, cause: NovaException) -> NovaException {
        NovaException(
            byPolicy ? "RescheduledByPolicyException" : "RescheduledException",
            "Build of instance \(uuid) was re-scheduled: \(cause.message)",
            details: "build failed on this host: \(cause.className): \(cause.details)",
            keywords: ["instance_uuid": .string(uuid), "reason": .string(cause.message)], cause: cause)
    }

    package static func base64(_ path: String) -> NovaException {
        NovaException(
            "Base64Exception", "Invalid Base 64 data for file \(path)", keywords: ["path": .string(path)])
    }

    package static func instanceNotRescuable(_ uuid: String, _ cause: NovaException) -> NovaException {
        let reason = "Driver Error: \(cause.message)"
        return NovaException(
            "InstanceNotRescuable", "Instance \(uuid) cannot be rescued: \(reason)", details: "\(cause)",
            keywords: ["instance_id": .string(uuid), "reason": .string(reason)], cause: cause)
    }

    package static func virtualInterfaceCreate(_ reason: String) -> NovaException {
        NovaException("VirtualInterfaceCreateException", "Virtual Interface creation failed: \(reason)")
    }

    /// What a failed image request means to a build.
    package static func image(_ id: String, _ error: any Error) -> NovaException {
        switch error {
        case let error as ServiceFault:
            return imageFault(id, error)
        case let error as ImageCorrupt:
            return NovaException(
                "ImageUnacceptable",
                "Image \(id) is unacceptable: \(error.reason). Upload it again, or ask its owner to.",
                keywords: ["image_id": .string(id), "reason": .string(error.reason)], cause: error)
        case let error as ImageWriteFailed:
            return NovaException(
                "NovaException",
                error.isOutOfSpace
                    ? "The compute host has no space left for image \(id)"
                    : "The compute host could not store image \(id)",
                details: "\(error)", cause: error)
        default:
            return NovaException(error)
        }
    }

    private static func imageFault(_ id: String, _ fault: ServiceFault) -> NovaException {
        let keywords: [String: JSONValue] = ["image_id": .string(id)]
        switch fault.kind {
        case .status(404):
            return NovaException(
                "ImageNotFound", "Image \(id) could not be found.", details: "\(fault)", keywords: keywords, cause: fault)
        case .status(401), .status(403):
            return NovaException(
                "ImageNotAuthorized", "Not authorized for image \(id).", details: "\(fault)", keywords: keywords,
                cause: fault)
        case .status(200), .status(204), .status(409):
            return NovaException(
                "ImageUnacceptable", "Image \(id) is unacceptable: Image has no associated data", details: "\(fault)",
                keywords: keywords, cause: fault)
        default:
            return NovaException(
                "GlanceConnectionFailed", "The image service could not deliver image \(id); try again later",
                details: "\(fault)", keywords: ["reason": .string("image service not available")], cause: fault)
        }
    }
}

extension ServiceFault {
    /// A token that is no longer good, as it may be in a long operation.
    var isExpiredToken: Bool { status == 401 }
}
