// The network of instances by Neutron. Neutron knows the ports; Nova's database keeps what they looked like last, the info
// cache, which the API shows. Each operation holds the instance's lock from its first request to the last write of the cache,
// so that two refreshes cannot overwrite each other with older news.
//
//   allocate ── check requests ─ find networks ─ create ports ─ bind ports ─┐
//   refresh ────────────────────────────────────────────────────────────────┴─ describe (NWI) ─ save the cache
//   deallocate ─ unbind what was there before ─ delete the rest ─ forget the interfaces ─ save the empty cache
import JSON
package import Logging
package import Neutron
package import NovaObjects
import OpenStackHTTP
package import OsloMessaging

package final class NeutronNetwork: InstanceNetwork {
    package struct Options: Sendable, Equatable {
        /// `[DEFAULT] host`: where ports are bound.
        package var host: String
        /// `[neutron] ovs_bridge`.
        package var ovsBridge: String
        /// `[DEFAULT] network_allocate_retries`.
        package var allocateRetries: Int
        /// `[DEFAULT] flat_injected`.
        package var isInjected: Bool
        /// Between two attempts to allocate, doubled up to 30 s.
        package var retryDelay: Duration

        package init(
            host: String, ovsBridge: String = "br-int", allocateRetries: Int = 0, isInjected: Bool = false,
            retryDelay: Duration = .seconds(1)
        ) {
            self.host = host
            self.ovsBridge = ovsBridge
            self.allocateRetries = allocateRetries
            self.isInjected = isInjected
            self.retryDelay = retryDelay
        }
    }

    let neutron: any NeutronAPI
    let conductor: Conductor
    let options: Options
    let builder: VIFBuilder
    let logger: Logger
    let locks = InstanceLocks()

    package init(neutron: any NeutronAPI, conductor: Conductor, options: Options, logger: Logger) {
        self.neutron = neutron
        self.conductor = conductor
        self.options = options
        self.logger = logger
        builder = VIFBuilder(neutron: neutron, ovsBridge: options.ovsBridge, isInjected: options.isInjected)
    }

    package func cached(_ instance: Instance) -> NetworkInfo {
        (instance.infoCache?.networkInfo ?? []).map { VIF($0) }
    }

    @discardableResult
    package func refresh(_ instance: Instance, portID: String?, context: RequestContext) async throws -> NetworkInfo {
        try await alone(instance, context) {
            let scope: Scope = portID.map { .one($0) } ?? .cached
            return try await describe(instance, scope, context: context)
        }
    }

    @discardableResult
    package func heal(_ instance: Instance, context: RequestContext) async throws -> NetworkInfo {
        try await alone(instance, context) { try await describe(instance, .current, context: context) }
    }

    package func forget(portID: String, of instance: Instance, context: RequestContext) async throws -> VIF? {
        try await alone(instance, context) {
            var info = try await storedInfo(of: instance, context: context)
            guard let index = info.firstIndex(where: { $0.id == portID }) else { return nil }
            let vif = info.remove(at: index)
            try await save(info, of: instance, context: context)
            return vif
        }
    }

    // MARK: One at a time, under the operation's request id

    func alone<Result: Sendable>(
        _ instance: Instance, _ context: RequestContext, _ body: () async throws -> Result
    ) async throws -> Result {
        try await OutgoingRequest.$globalID.withValue(Self.globalID(of: context)) {
            do {
                return try await locks.withLock(instance.uuid, body)
            } catch let fault as ServiceFault {
                throw Self.exception(fault)
            }
        }
    }

    static func globalID(of context: RequestContext) -> String? {
        let own = context.requestID.isEmpty ? nil : context.requestID
        return context.entries["global_request_id"]?.stringValue ?? own
    }

    /// Who asks for the user: the user's token, or this service where an administrator's context has none (contract §7.1).
    static func authorization(of context: RequestContext) throws(NovaException) -> RequestAuthorization {
        if let token = context.authToken, !token.isEmpty { return .user(token: token) }
        if context.isAdmin { return .service }
        throw NovaException("Unauthorized", "Not authorized.", code: 401, details: "the request carries no token (caller)")
    }

    static func exception(_ fault: ServiceFault) -> NovaException {
        switch fault.status {
        case 401: NovaException("Unauthorized", "Not authorized.", code: 401, details: "\(fault)", cause: fault)
        case 403: NovaException("Forbidden", fault.body, code: 403, details: "\(fault)", cause: fault)
        default: NovaException(fault)
        }
    }
}
