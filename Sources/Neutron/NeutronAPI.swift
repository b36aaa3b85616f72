// The Neutron requests a compute service makes (contract §7.2). Bodies stay JSON: the callers know their keys.
package import JSON
package import OpenStackHTTP

/// Every method throws `ServiceFault`. Query values are percent-encoded by the client.
package protocol NeutronAPI: Sendable {
    /// GET /v2.0/ports with these query items; the "ports" array.
    func ports(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue]
    /// - Parameter fields: the members to answer with; all where there are none.
    func port(_ id: String, fields: [String], as authorization: RequestAuthorization) async throws -> JSONValue
    /// POST; `port` is the content of "port", and so is the answer.
    func createPort(_ port: JSONValue, as authorization: RequestAuthorization) async throws -> JSONValue
    func updatePort(_ id: String, _ port: JSONValue, as authorization: RequestAuthorization) async throws -> JSONValue
    /// GET /v2.0/ports/<id>/bindings/<host>, of the extension "binding-extended"; nil: the port has no binding there.
    func binding(ofPort id: String, on host: String, as authorization: RequestAuthorization) async throws -> JSONValue?
    /// Makes it the port's active binding.
    func activateBinding(ofPort id: String, on host: String, as authorization: RequestAuthorization) async throws
    /// A port that is gone is no error.
    func deletePort(_ id: String, as authorization: RequestAuthorization) async throws
    func networks(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue]
    func network(_ id: String, fields: [String], as authorization: RequestAuthorization) async throws -> JSONValue
    func subnets(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue]
    /// Floating IPs; an API without a router plugin (404) has none.
    func floatingIPs(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue]
    func securityGroups(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue]
    /// The network Neutron made, or makes now, for a project that asked for none in particular; its id.
    func autoAllocatedTopology(of projectID: String, as authorization: RequestAuthorization) async throws -> String
    /// Aliases of the extensions, cached for `extension_sync_interval`.
    func extensions(as authorization: RequestAuthorization) async throws -> Set<String>
}

extension NeutronAPI {
    package func port(_ id: String, as authorization: RequestAuthorization) async throws -> JSONValue {
        try await port(id, fields: [], as: authorization)
    }
}
