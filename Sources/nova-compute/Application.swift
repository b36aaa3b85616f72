// Puts the service together and runs it: what is made in which order, who owns whom, and in which order it ends.
//
//   broker connections ▸ runners of instances ▸ guests' numbers ▸ probes ▸ SIGHUP ▸ the host (start, requests, periodic work)
//
// A graceful shutdown (SIGTERM) goes from right to left: no more requests are taken, then what runs is finished or
// given up after `graceful_shutdown_timeout`, then the connections close. SIGINT cancels everything at once. Guests are
// not touched by either.
import Compute
import ComputeDriver
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import ServiceLifecycle
import ServiceMetrics
import UnixSignals

struct Application: Sendable {
    private let configuration: Configuration
    private let logger: Logger
    private let clients: ServiceClients
    private let services: [any ServiceLifecycle.Service]
    private let notifier = ServiceManagerNotifier()

    init(
        _ loaded: LoadedConfiguration, sink: LogSink, logger: Logger,
        reload: @escaping @Sendable () -> LoadedConfiguration?
    ) throws {
        let configuration = loaded.configuration
        guard let profile = ReleaseProfile.named(configuration.apus.release) else {
            throw ConfigurationError(problems: [
                "[apus] release: \"\(configuration.apus.release)\" is no release this service knows"
            ])
        }
        if let set = configuration.resources.cpuSharedSet, CPUSet(set) == nil {
            throw ConfigurationError(problems: ["[compute] cpu_shared_set: \"\(set)\" is no list of CPUs"])
        }
        self.configuration = configuration
        self.logger = logger
        let clients = try ServiceClients(configuration, logger: Logger(label: "nova.clients"))
        self.clients = clients
        let messaging = try MessagingParts(configuration, logger: Logger(label: "oslo.messaging"))
        let selection = try DriverSelection(configuration, logger: Logger(label: "nova.virt.apus"))
        let conductor = Conductor(
            client: messaging.client, profile: profile, timeout: configuration.messaging.responseTimeout)
        let metrics = ComputeMetrics(
            version: ProgramVersion.text, rpcVersion: profile.computeRPCVersion, serviceVersion: profile.serviceVersion,
            host: configuration.host)
        let parts = HostParts(
            conductor: conductor, driver: selection.driver, placement: clients.placement, configuration: configuration,
            news: SchedulerNews(
                client: messaging.client, host: configuration.host, profile: profile,
                isEnabled: configuration.compute.tracksInstanceChanges, logger: logger),
            health: HostHealth(), names: GuestNames(selection.instanceName), logger: logger)
        let tracker = ResourceTracker(parts: parts)
        let network = NeutronNetwork(
            neutron: clients.neutron, conductor: conductor,
            options: .init(
                host: configuration.host, ovsBridge: configuration.network.ovsBridge,
                allocateRetries: configuration.network.allocateRetries), logger: Logger(label: "nova.network.neutron"))
        let manager = ComputeManager(
            ComputeServices(
                conductor: conductor, driver: selection.driver, books: tracker, network: network,
                notifications: NovaNotifications(
                    notifier: messaging.notifier, conductor: conductor,
                    options: .init(notifications: configuration.notifications, host: configuration.host),
                    logger: Logger(label: "nova.notifications")),
                metadata: ConfigDriveMetadata(conductor: conductor, neutron: clients.neutron), glance: clients.glance,
                configuration: configuration, metrics: metrics, logger: Logger(label: "nova.compute.manager")))
        let sampler = GuestSampler(driver: selection.driver, names: parts.names, logger: logger)
        let host = Self.host(parts, tracker, manager, network, messaging, loaded.files, notifier)
        services =
            messaging.services
            + [manager.runners, sampler, Reloader(sink: sink, reload: reload, logger: logger)]
            + (try Self.endpoint(configuration, metrics, sampler, messaging, parts.health, logger).map { [$0] } ?? [])
            + (notifier.watchdog.map { [$0] } ?? []) + [host]
            + [ShutdownLimit(limit: configuration.compute.gracefulShutdownTimeout + .seconds(15), logger: logger)]
    }

    func run() async throws {
        var group = ServiceGroupConfiguration(
            services: services.map {
                ServiceGroupConfiguration.ServiceConfiguration(
                    service: $0, successTerminationBehavior: .gracefullyShutdownGroup)
            },
            gracefulShutdownSignals: [.sigterm], cancellationSignals: [.sigint], logger: Logger(label: "nova.service"))
        group.maximumGracefulShutdownDuration = configuration.compute.gracefulShutdownTimeout
        await notifier.notify("STATUS=waiting for a conductor")
        let outcome: Result<Void, any Error>
        do {
            try await ServiceGroup(configuration: group).run()
            outcome = .success(())
        } catch is CancellationError {
            outcome = .success(())
        } catch {
            outcome = .failure(error)
        }
        await clients.shutdown()
        logger.info("nova-compute has ended")
        try outcome.get()
    }

    private static func host(
        _ parts: HostParts, _ tracker: ResourceTracker, _ manager: ComputeManager, _ network: any InstanceNetwork,
        _ messaging: MessagingParts, _ files: [String], _ notifier: ServiceManagerNotifier
    ) -> ComputeHost {
        let configuration = parts.configuration
        let record = ServiceRecord(
            conductor: parts.conductor, host: configuration.host, health: parts.health, logger: parts.logger)
        let startup = HostStartup(
            parts: parts, tracker: tracker, service: record, configurationFiles: files, instances: manager,
            network: network)
        let tasks = HostTasks(parts: parts, tracker: tracker, instances: manager, network: network)
        let fuzz = configuration.intervals.periodicFuzzyDelay.components.seconds
        let started: @Sendable () -> Void = { Task { await notifier.notify("READY=1\nSTATUS=taking requests") } }
        return ComputeHost(
            startup: startup, health: parts.health, logger: parts.logger,
            parts: {
                [
                    messaging.server(host: configuration.host, endpoints: ComputeEndpoint.all(manager), configuration),
                    ServiceHeartbeat(record, interval: configuration.intervals.report, clock: ContinuousClock()),
                    PeriodicWork(
                        tasks.all, clock: ContinuousClock(), initialDelay: .seconds(Int64.random(in: 0...max(0, fuzz))),
                        logger: parts.logger),
                    LifecycleWatcher(parts: parts, instances: manager),
                ]
            }, hasStarted: started)
    }

    private static func endpoint(
        _ configuration: Configuration, _ metrics: ComputeMetrics, _ sampler: GuestSampler, _ messaging: MessagingParts,
        _ health: HostHealth, _ logger: Logger
    ) throws -> OperatorEndpoint? {
        let text = configuration.apus.metricsListen
        guard !text.isEmpty else { return nil }
        guard let address = OperatorEndpointOptions.Address(text) else {
            throw ConfigurationError(problems: ["[apus] listen: \"\(text)\" is neither address:port nor a path"])
        }
        let counters = messaging.transport.counters
        let sources: [any MetricSource] = [metrics, MessagingMetrics(counters: counters), sampler.metrics]
        return OperatorEndpoint(
            options: OperatorEndpointOptions(address: address), metrics: MetricTree { sources },
            liveness: { HealthReport([.init("process")]) },
            readiness: { health.readiness(isBrokerConnected: counters.snapshot.isConnected) }, logger: logger)
    }
}

extension OperatorEndpointOptions.Address {
    /// "127.0.0.1:9620", "[::1]:9620" or "/run/nova/metrics.sock".
    init?(_ text: String) {
        if text.hasPrefix("/") {
            self = .unixSocket(path: text)
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65535).contains(port)
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard !host.isEmpty else { return nil }
        self = .network(host: host, port: port)
    }
}
