// Which endpoint answers a request (oslo_messaging/rpc/dispatcher.py): the first that is of the namespace, compatible in
// version, and has the method.
import JSON

struct RPCDispatcher: Sendable {
    private static let module = "oslo_messaging.rpc.dispatcher"
    let endpoints: [any RPCEndpoint]

    func endpoint(for request: WireRequest) throws(RemoteFailure) -> any RPCEndpoint {
        var isVersionServed = false
        // A leading underscore is Python's mark of what is not meant for callers.
        let isPublic = !request.method.isEmpty && !request.method.hasPrefix("_")
        for endpoint in endpoints where (endpoint.namespace ?? "") == (request.namespace ?? "") {
            guard let own = RPCVersion(endpoint.version), let wanted = RPCVersion(request.version), own.serves(wanted)
            else { continue }
            isVersionServed = true
            if isPublic, endpoint.methods.contains(request.method) { return endpoint }
        }
        if isVersionServed {
            throw RemoteFailure(
                className: "NoSuchMethod", module: Self.module,
                message: "Endpoint does not support RPC method \(request.method)")
        }
        throw RemoteFailure(
            className: "UnsupportedVersion", module: Self.module,
            message: "Endpoint does not support RPC version \(request.version). Attempted method: \(request.method)")
    }

    func dispatch(_ request: WireRequest) async -> Result<JSONValue, RemoteFailure> {
        do {
            let endpoint = try endpoint(for: request)
            return .success(
                try await endpoint.dispatch(
                    RPCRequest(
                        method: request.method, arguments: request.arguments, namespace: request.namespace,
                        version: request.version, context: request.context, isCall: request.reply != nil)))
        } catch {
            return .failure(RemoteFailure(from: error))
        }
    }
}
