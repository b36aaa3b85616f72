// Clients of the neighbour services: one connection pool and one identity for each section of nova.conf.
import Glance
import Keystone
import Logging
import Neutron
import OpenStackHTTP
import Placement
import ServiceConfiguration

final class ServiceClients: Sendable {
    let placement: PlacementClient
    let neutron: NeutronClient
    let glance: GlanceClient
    let placementIdentity: KeystoneAuthenticator
    private let transports: [HTTPTransport]

    init(_ configuration: Configuration, logger: Logger) throws {
        var transports: [HTTPTransport] = []
        func client(_ section: String, _ options: ServiceClientOptions) throws -> (HTTPTransport, KeystoneAuthenticator)
        {
            let transport = try HTTPTransport(TransportOptions(options))
            transports.append(transport)
            return (
                transport,
                KeystoneAuthenticator(
                    credentials: try Credentials(section, options), transport: transport, logger: logger)
            )
        }
        let user = configuration.serviceUser
        let serviceTokens = user.sendsServiceUserToken ? try client("service_user", user.client).1 : nil
        func session(
            _ section: String, _ options: ServiceClientOptions, sendsServiceToken: Bool, override: String? = nil,
            retriesUnavailable: Bool = false
        ) throws -> (ServiceSession, KeystoneAuthenticator) {
            let (transport, identity) = try client(section, options)
            let endpoint = EndpointOptions(
                serviceType: options.serviceType, interfaces: options.validInterfaces, region: options.regionName,
                override: options.endpointOverride ?? override, retriesUnavailable: retriesUnavailable)
            return (
                ServiceSession(
                    endpoint: endpoint, transport: transport, authenticator: identity,
                    serviceTokens: sendsServiceToken ? serviceTokens : nil, logger: logger), identity
            )
        }
        let (placement, identity) = try session("placement", configuration.placement, sendsServiceToken: false)
        self.placement = PlacementClient(session: placement)
        placementIdentity = identity
        neutron = NeutronClient(
            session: try session("neutron", configuration.neutron, sendsServiceToken: true).0,
            extensionInterval: configuration.network.extensionSyncInterval)
        // A Glance without credentials of its own is asked with Neutron's catalogue and the users' tokens.
        let glanceOptions =
            configuration.glance.hasCredentials
            ? configuration.glance : configuration.glance.borrowing(configuration.neutron)
        glance = GlanceClient(
            session: try session(
                "glance", glanceOptions, sendsServiceToken: true, override: configuration.images.glanceAPIServers.first,
                retriesUnavailable: true
            ).0)
        self.transports = transports
    }

    func shutdown() async {
        for transport in transports { await transport.shutdown() }
    }
}

extension TransportOptions {
    init(_ options: ServiceClientOptions) {
        self.init()
        caFile = options.caFile
        certificateFile = options.certificateFile
        keyFile = options.keyFile
        isInsecure = options.isInsecure
        if let timeout = options.timeout, timeout > 0 { requestTimeout = .seconds(timeout) }
        if let count = options.connectRetries { retries = count }
    }
}

extension Credentials {
    init(_ section: String, _ options: ServiceClientOptions) throws {
        guard options.hasCredentials, let authURL = options.authURL, let password = options.password else {
            throw ConfigurationError(problems: [
                "[\(section)]: auth_url, username and password are needed to ask Keystone for a token"
            ])
        }
        self.init(
            authURL: authURL, username: options.username, userID: options.userID, password: password,
            userDomainName: options.userDomainName, userDomainID: options.userDomainID,
            projectName: options.projectName,
            projectID: options.projectID, projectDomainName: options.projectDomainName,
            projectDomainID: options.projectDomainID)
    }
}

extension ServiceClientOptions {
    /// These options with the identity of another section.
    func borrowing(_ other: ServiceClientOptions) -> ServiceClientOptions {
        var options = other
        options.serviceType = serviceType
        options.serviceName = serviceName
        options.endpointOverride = endpointOverride
        options.regionName = regionName ?? other.regionName
        options.validInterfaces = validInterfaces
        options.timeout = timeout
        return options
    }
}
