// One error of an operation, in its three forms: what the tenant reads, what the operator reads, which class of
// nova.exception goes over the wire. Errors of drivers and clients become one where an operation meets them.
import ComputeDriver
import Glance
package import JSON
import OpenStackHTTP
package import OsloMessaging

/// An exception of Nova's, raised by this service or received from a peer.
package struct NovaException: Error, Sendable, CustomStringConvertible {
    /// "InstanceNotFound", "BuildAbortException", …
    package let className: String
    package let module: String
    /// HTTP status the API makes of it; the class's own where none is given.
    package let code: Int
    /// For the tenant: no host paths, no addresses.
    package let message: String
    /// For the operator; equal to `message` where there is nothing to add.
    package let details: String
    /// Keyword arguments the class takes, sent along.
    package let keywords: [String: JSONValue]
    package let cause: (any Error)?

    package init(
        _ className: String, _ message: String, code: Int? = nil, module: String = "nova.exception", details: String? = nil,
        keywords: [String: JSONValue] = [:], cause: (any Error)? = nil
    ) {
        self.className = className
        self.module = module
        self.code = code ?? ExceptionCodes.code(of: className)
        self.message = message
        self.details = details ?? message
        self.keywords = keywords
        self.cause = cause
    }

    package var description: String { "\(className): \(details)" + (cause.map { ": \($0)" } ?? "") }
}

extension NovaException {
    /// What `error` is in Nova's terms; the original is kept as `cause`.
    package init(_ error: any Error) {
        switch error {
        case let error as NovaException: self = error
        case let error as DriverError:
            self.init(error.novaClass, error.tenantMessage, details: error.operatorMessage, cause: error)
        case let error as RemoteFailure:
            self.init(
                error.className, error.message, code: error.keywords["code"]?.intValue, module: error.module,
                keywords: error.keywords, cause: error)
        case let error as MessagingTimeout:
            self.init("MessagingTimeout", "\(error)", module: "oslo_messaging.exceptions", cause: error)
        case let error as ImageCorrupt:
            self.init(
                "ImageUnacceptable", "Image \(error.imageID) is unacceptable: \(error.reason)", code: 400, cause: error)
        case let error as ServiceFault:
            self.init("NovaException", "\(error.service) service failed: \(error.body)", details: "\(error)", cause: error)
        case is CancellationError:
            self.init("NovaException", "The compute service is shutting down; try again later", code: 503, cause: error)
        default:
            self.init("NovaException", "An internal error occurred on the compute host", details: "\(error)", cause: error)
        }
    }

    /// True where `error` is this class of Nova's, raised here or by a peer.
    package static func isClass(_ name: String, _ error: any Error) -> Bool {
        switch error {
        case let error as NovaException: error.className == name
        case let error as RemoteFailure: error.className == name
        case let error as DriverError: error.novaClass == name
        default: false
        }
    }

    package var failure: RemoteFailure {
        var keywords = keywords
        if module == "nova.exception" { keywords["code"] = .integer(Int64(code)) }
        return RemoteFailure(className: className, module: module, message: message, keywords: keywords)
    }

    /// What the caller of a method that this service does not carry out expects.
    package static func notImplemented(_ method: String) -> NovaException {
        NovaException(
            "NotImplementedError", "\(method) is not available on this compute host", code: 501, module: "builtins")
    }
}
