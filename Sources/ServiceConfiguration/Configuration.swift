// The options of nova.conf that this service obeys, with Nova's names, types and defaults. Options it does not know are
// ignored, as oslo.config does; the reader lists them. The one section of our own is [apus].

/// The configuration of the compute service.
package struct Configuration: Sendable {
    /// This service's name in the control plane: queue "compute.<host>", binding:host_id, Service record.
    package var host: String
    package var myIP: String
    package var myBlockStorageIP: String
    package var statePath: String
    package var instancesPath: String
    /// As written; `nova-compute` chooses the driver by it.
    package var computeDriver: String?
    package var compute: ComputeOptions
    package var resources: ResourceOptions
    package var intervals: IntervalOptions
    package var images: ImageOptions
    package var network: NetworkOptions
    package var messaging: MessagingOptions
    package var notifications: NotificationOptions
    package var placement: ServiceClientOptions
    package var neutron: ServiceClientOptions
    package var glance: ServiceClientOptions
    package var serviceUser: ServiceUserOptions
    package var logging: LoggingOptions
    package var apus: ApusOptions
}

/// [DEFAULT] and [compute] options of operations on instances and of start and stop.
package struct ComputeOptions: Sendable, Equatable {
    package var instanceNameTemplate: String
    package var maximumConcurrentBuilds: Int
    package var maximumConcurrentSnapshots: Int
    /// [libvirt] cpu_mode: "host-passthrough", "host-model", "custom", "none"; nil: the host's processor.
    package var processorMode: String?
    /// [libvirt] cpu_models: the first is taken where the mode is custom.
    package var processorModels: [String]
    /// [libvirt] cpu_model_extra_flags: "+pcid", "pcid", "-vmx".
    package var processorFlags: [String]
    /// [DEFAULT] default_ephemeral_format: the file system of ephemeral disks whose image names no os_type; nil: vfat.
    package var ephemeralFormat: String?
    /// Glance's disk_format of snapshots; nil: this service's choice.
    package var snapshotImageFormat: String?
    /// How long a shelved server stays on its host: zero: not at all; negative: for ever.
    package var shelvedOffloadTime: Duration
    /// How long a soft-deleted server can be restored; zero: it is not kept.
    package var reclaimInterval: Duration
    package var isConfigDriveForced: Bool
    /// [DEFAULT] config_drive_format is vfat, and not iso9660.
    package var isConfigDriveFAT: Bool
    /// Seconds a guest has to shut itself down; its image may say otherwise.
    package var shutdownTimeout: Duration
    package var shutdownRetryInterval: Duration
    package var resumesGuestsOnHostBoot: Bool
    package var softRebootTimeout: Duration
    package var usesLifecycleEvents: Bool
    package var ignoresServiceVersionFloor: Bool
    package var tracksInstanceChanges: Bool
    package var defaultAccessIPNetworkName: String?
    /// Builds that fail in a row before this host disables itself; 0 switches that off.
    package var consecutiveBuildFailureLimit: Int
    /// What is done with a machine whose instance is deleted: "reap", "shutdown", "log" or "noop".
    package var runningDeletedAction: String
    /// How long an instance must have been deleted for that.
    package var runningDeletedTimeout: Duration
    package var gracefulShutdownTimeout: Duration
}

/// What of the host is offered.
package struct ResourceOptions: Sendable, Equatable {
    package var reservedHostCPUs: Int
    package var reservedHostMemoryMiB: Int
    package var reservedHostDiskMiB: Int
    /// Nil: keep what Placement has, or the initial ratio.
    package var cpuAllocationRatio: Double?
    package var ramAllocationRatio: Double?
    package var diskAllocationRatio: Double?
    /// Nil: the release's default.
    package var initialCPUAllocationRatio: Double?
    package var initialRAMAllocationRatio: Double?
    package var initialDiskAllocationRatio: Double
    /// "0-3,^2"; nil: every CPU of the host.
    package var cpuSharedSet: String?
    /// Pages that are not for servers.
    package var reservedHugePages: [ReservedPages]
    package var associationRefresh: Duration
    package var imageTypeExcludeList: [String]
}

/// Pages of one size on one NUMA node of the host, `reserved_huge_pages`.
package struct ReservedPages: Sendable, Equatable {
    package var node: Int
    package var sizeKiB: Int
    package var count: Int

    package init(node: Int, sizeKiB: Int, count: Int) {
        self.node = node
        self.sizeKiB = sizeKiB
        self.count = count
    }

    /// "node:0,size:2048,count:64"; a size without a unit is in KiB. Nil: something else.
    init?(_ text: String) {
        var fields: [Substring: Substring] = [:]
        for item in text.split(separator: ",") {
            let parts = item.filter { !$0.isWhitespace }.split(separator: ":").map { Substring($0) }
            guard parts.count == 2, fields.updateValue(parts[1], forKey: parts[0]) == nil else { return nil }
        }
        guard Set(fields.keys) == ["node", "size", "count"], let node = fields["node"].flatMap({ Int($0) }), let size = fields["size"].flatMap(Self.kibibytes),
            let count = fields["count"].flatMap({ Int($0) }), node >= 0, count >= 0
        else { return nil }
        (self.node, sizeKiB, self.count) = (node, size, count)
    }

    private static func kibibytes(_ text: Substring) -> Int? {
        let digits = text.prefix { $0.isNumber }
        let units: [String: Int] = ["": 1, "K": 1, "M": 1024, "G": 1_048_576]
        var unit = text[digits.endIndex...].uppercased()
        for suffix in ["IB", "B"] where unit.hasSuffix(suffix) {
            unit.removeLast(suffix.count)
            break
        }
        guard let number = Int(digits), number > 0, number < 1 << 30, let factor = units[unit] else { return nil }
        return number * factor
    }
}

/// When periodic work runs. Negative: never; 0: every 60 s; only where Nova says so.
package struct IntervalOptions: Sendable, Equatable {
    package var report: Duration
    package var isPeriodicWorkEnabled: Bool
    package var periodicFuzzyDelay: Duration
    package var updateResources: Int
    package var syncPowerState: Int
    package var healInstanceInfoCache: Int
    package var schedulerInstanceSync: Int
    package var runningDeletedPoll: Int
    package var shelvedPoll: Int
    /// How many seconds a resize waits for its user before it is confirmed for him; 0: for ever.
    package var resizeConfirmWindow: Int
}

package struct ImageOptions: Sendable, Equatable {
    package var isRawForced: Bool
    package var usesCopyOnWrite: Bool
    package var cacheSubdirectory: String
    package var cacheManagerInterval: Int
    package var removesUnusedBaseImages: Bool
    /// How long a cached image stays that nothing uses.
    package var unusedBaseImageAge: Duration
    package var glanceAPIServers: [String]
    package var glanceRetries: Int
}

package struct NetworkOptions: Sendable, Equatable {
    /// 0: do not wait for network-vif-plugged.
    package var vifPluggingTimeout: Duration
    package var isVIFPluggingFatal: Bool
    package var ovsBridge: String
    package var extensionSyncInterval: Duration
    package var httpRetries: Int
    package var allocateRetries: Int
}

/// oslo.messaging's options.
package struct MessagingOptions: Sendable, Equatable {
    /// With the password: never to be logged.
    package var transportURL: String
    package var controlExchange: String
    package var responseTimeout: Duration
    package var longRPCTimeout: Duration
    package var executorPoolSize: Int
    package var usesTLS: Bool
    package var caFile: String?
    package var certificateFile: String?
    package var keyFile: String?
    package var verifiesHostName: Bool
    package var loginMethod: String
    package var heartbeatTimeout: Int
    package var heartbeatRate: Int
    package var retryInterval: Int
    package var retryBackoff: Int
    package var retryIntervalMaximum: Int
    package var reconnectDelay: Double
    package var missingConsumerRetryTimeout: Duration
    package var isFailoverShuffled: Bool
    package var areQueuesDurable: Bool
    package var areQueuesAutoDeleted: Bool
    package var areQueuesMirrored: Bool
    package var isQuorumQueue: Bool
    package var quorumDeliveryLimit: Int
    package var quorumMaximumMemoryLength: Int
    package var quorumMaximumMemoryBytes: Int
    package var transientQueueTTL: Int
    package var prefetchCount: Int
    package var connectionPoolSize: Int
}

package struct NotificationOptions: Sendable, Equatable {
    /// oslo.messaging notification drivers; "messagingv2" and "messaging" are the ones that send.
    package var drivers: [String]
    package var topics: [String]
    package var versionedTopics: [String]
    /// Nil: the transport of the RPC.
    package var transportURL: String?
    /// "unversioned", "versioned" or "both".
    package var format: String
    package var defaultLevel: String
    package var notifiesOnStateChange: String?

    package var isEnabled: Bool { drivers.contains("messagingv2") || drivers.contains("messaging") }
    package var sendsLegacy: Bool { isEnabled && format != "versioned" }
    package var sendsVersioned: Bool { isEnabled && format != "unversioned" }
}

/// keystoneauth's options of a section that configures a client.
package struct ServiceClientOptions: Sendable, Equatable {
    package var authType: String?
    package var authURL: String?
    package var username: String?
    package var userID: String?
    /// Never to be logged.
    package var password: String?
    package var userDomainName: String?
    package var userDomainID: String?
    package var projectName: String?
    package var projectID: String?
    package var projectDomainName: String?
    package var projectDomainID: String?
    package var regionName: String?
    package var validInterfaces: [String]
    package var serviceType: String
    package var serviceName: String?
    package var endpointOverride: String?
    package var caFile: String?
    package var certificateFile: String?
    package var keyFile: String?
    package var isInsecure: Bool
    package var timeout: Double?
    package var connectRetries: Int?

    /// True where there is enough to ask Keystone for a token.
    package var hasCredentials: Bool { authURL != nil && password != nil && (username != nil || userID != nil) }
}

package struct ServiceUserOptions: Sendable, Equatable {
    package var sendsServiceUserToken: Bool
    package var client: ServiceClientOptions
}

/// [apus]: what Nova has no option for.
package struct ApusOptions: Sendable, Equatable {
    /// The monitor's program; nil: beside this program, then in PATH.
    package var monitorPath: String?
    /// "address:port" of /healthz, /readyz and /metrics; empty: no listener.
    package var metricsListen: String
    /// The control plane's release, by name or number.
    package var release: String
    /// Where the monitors' control sockets are.
    package var runDirectory: String
}
