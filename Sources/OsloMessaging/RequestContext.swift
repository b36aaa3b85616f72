// The request context that travels in every message as `_context_*` keys (nova.context.RequestContext).
package import JSON

/// Who asked, under which request id, with which token. Unknown entries are kept and sent on.
package struct RequestContext: Sendable, Equatable {
    /// All entries, by their names without the `_context_` prefix.
    package var entries: [String: JSONValue]

    package init(entries: [String: JSONValue] = [:]) {
        self.entries = entries
    }

    /// "req-" and a UUID; empty where the sender gave none.
    package var requestID: String { entries["request_id"]?.stringValue ?? "" }
    package var userID: String? { entries["user_id"]?.stringValue }
    package var projectID: String? { entries["project_id"]?.stringValue }
    package var authToken: String? { entries["auth_token"]?.stringValue }
    package var isAdmin: Bool { entries["is_admin"]?.boolValue ?? false }
}
