// Failures on the wire: a JSON text with class, module, message, traceback, arguments (oslo_messaging/_drivers/common.py).
import JSON

extension RemoteFailure {
    /// Python sends an exception that itself came from remote with this suffix.
    private static let suffix = "_Remote"

    private static func stripped(_ name: String) -> String {
        name.hasSuffix(suffix) ? String(name.dropLast(suffix.count)) : name
    }

    package var wireText: String {
        let lines = traceback.isEmpty ? ["\(module).\(Self.stripped(className)): \(message)\n"] : traceback
        return JSONValue.object([
            "class": .string(Self.stripped(className)),
            "module": .string(Self.stripped(module)),
            "message": .string(message),
            "tb": .array(lines.map(JSONValue.string)),
            "args": .array(arguments),
            "kwargs": .object(keywords),
        ]).serialize()
    }

    /// A text that is no failure's becomes the message of one.
    package init(wireText: String) {
        guard let value = try? JSONValue.parse(wireText, limits: JSONLimits(depth: 96, allowsNonFinite: true)),
            case .object(let members) = value
        else {
            self.init(className: "RemoteError", module: "oslo_messaging.rpc.client", message: wireText)
            return
        }
        self.init(
            className: Self.stripped(members["class"]?.stringValue ?? "RemoteError"),
            module: Self.stripped(members["module"]?.stringValue ?? ""),
            message: members["message"]?.stringValue ?? "",
            arguments: members["args"]?.arrayValue ?? [],
            keywords: members["kwargs"]?.objectValue ?? [:],
            traceback: members["tb"]?.arrayValue?.compactMap(\.stringValue) ?? [])
    }

    /// What an error of an endpoint looks like to the other side.
    package init(from error: any Error) {
        switch error {
        case let failure as RemoteFailure: self = failure
        case let timeout as MessagingTimeout:
            self.init(
                className: "MessagingTimeout", module: "oslo_messaging.exceptions", message: timeout.description)
        case is CancellationError:
            self.init(className: "NovaException", message: "The service stopped before the request was done")
        default: self.init(className: "NovaException", message: "\(error)", keywords: ["code": .integer(500)])
        }
    }
}
