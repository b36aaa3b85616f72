// POST /v3/auth/tokens (Identity API v3, "Password authentication with scoped authorization"): the body, and what the
// answer says about the token's life.
import JSON

enum TokenRequest {
    /// The identity endpoint from `auth_url`, which operators write with and without its version.
    static func baseURL(_ authURL: String) -> String {
        var url = authURL
        while url.hasSuffix("/") { url.removeLast() }
        if url.hasSuffix("/v2.0") { url.removeLast("/v2.0".count) }
        return url.hasSuffix("/v3") ? url : url + "/v3"
    }

    static func body(_ credentials: Credentials) -> JSONValue {
        var user = subject(
            name: credentials.username, id: credentials.userID, domainName: credentials.userDomainName,
            domainID: credentials.userDomainID)
        user["password"] = .string(credentials.password)
        var auth: [String: JSONValue] = [
            "identity": ["methods": ["password"], "password": ["user": .object(user)]]
        ]
        if credentials.projectName != nil || credentials.projectID != nil {
            let project = subject(
                name: credentials.projectName, id: credentials.projectID, domainName: credentials.projectDomainName,
                domainID: credentials.projectDomainID)
            auth["scope"] = ["project": .object(project)]
        }
        return ["auth": .object(auth)]
    }

    /// An id stands alone; a name needs its domain.
    private static func subject(
        name: String?, id: String?, domainName: String?, domainID: String?
    ) -> [String: JSONValue] {
        if let id { return ["id": .string(id)] }
        var subject: [String: JSONValue] = ["name": .string(name ?? "")]
        if let domainID {
            subject["domain"] = ["id": .string(domainID)]
        } else if let domainName {
            subject["domain"] = ["name": .string(domainName)]
        }
        return subject
    }

    /// Seconds between `issued_at` and `expires_at`, both the server's: a host with a wrong clock still renews in time.
    static func lifetimeSeconds(_ token: JSONValue) -> Int64? {
        guard let issued = token["issued_at"]?.stringValue.flatMap(seconds),
            let expires = token["expires_at"]?.stringValue.flatMap(seconds), expires > issued
        else { return nil }
        return expires - issued
    }

    /// Seconds since 1970 of "2026-11-23T02:00:00.000000Z".
    static func seconds(_ text: String) -> Int64? {
        let fields = text.prefix(19).split(whereSeparator: { "-T:".contains($0) }).compactMap { Int64($0) }
        guard text.hasSuffix("Z"), fields.count == 6, (1970...9999).contains(fields[0]), (1...12).contains(fields[1]),
            (1...31).contains(fields[2]), fields[3] < 24, fields[4] < 60, fields[5] < 61
        else { return nil }
        // Days from the civil calendar, years beginning in March so that the leap day is the last.
        let year = fields[1] > 2 ? fields[0] : fields[0] - 1
        let month = fields[1] > 2 ? fields[1] - 3 : fields[1] + 9
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + fields[2] - 1 - 719_468
        return ((days * 24 + fields[3]) * 60 + fields[4]) * 60 + fields[5]
    }
}
