// The context of what the service does on its own account (nova.context.get_admin_context): no user, no token, one
// request id for each start, pass or event, so that its lines in all logs are found together.
import Foundation
import JSON
import NovaObjects
package import OsloMessaging

extension RequestContext {
    /// A context with a fresh request id.
    package static func administrator() -> RequestContext {
        let absent = [
            "user", "project_id", "system_scope", "project", "domain", "user_domain", "project_domain", "auth_token",
            "global_request_id", "resource_uuid", "user_id", "remote_address", "quota_class", "user_name",
            "project_name",
        ]
        var entries = Dictionary(absent.map { ($0, JSONValue.null) }, uniquingKeysWith: { first, _ in first })
        entries["is_admin"] = true
        entries["read_only"] = false
        entries["show_deleted"] = false
        entries["is_admin_project"] = true
        entries["roles"] = []
        entries["service_catalog"] = []
        entries["read_deleted"] = "no"
        entries["user_identity"] = "- - - - -"
        entries["request_id"] = .string("req-" + UUID().uuidString.lowercased())
        entries["timestamp"] = .string(NovaTime.now.entityText)
        return RequestContext(entries: entries)
    }

    /// The same request with an administrator's rights (RequestContext.elevated).
    package var elevated: RequestContext {
        var context = self
        context.entries["is_admin"] = true
        let roles = entries["roles"]?.arrayValue ?? []
        if !roles.contains("admin") { context.entries["roles"] = .array(roles + ["admin"]) }
        return context
    }

    /// The same request, for which deleted rows exist too.
    package var readingDeleted: RequestContext {
        var context = self
        context.entries["read_deleted"] = "yes"
        return context
    }
}
