// Reads the options of `Configuration`. Each line is an option of Nova's table: group, name, default, deprecated names.
import Foundation

/// What was read, and what an operator may want to know about it.
package struct LoadedConfiguration: Sendable {
    package let configuration: Configuration
    package let files: [String]
    /// Deprecated names in use, one line each.
    package let notices: [String]
    /// Options this service does not know: Nova's other options, or spelling mistakes.
    package let unknownOptions: [String]
    /// What the service obeys, defaults included, without secrets.
    package let effective: [EffectiveOption]
}

/// Facts of the host that are the default of an option.
package struct HostDefaults: Sendable {
    package var hostName: String
    package var address: String

    package init(hostName: String, address: String) {
        self.hostName = hostName
        self.address = address
    }
}

extension Configuration {
    /// Reads files, environment and overrides of the command line (group, name, value).
    package static func load(
        files: ConfigurationFiles, environment: [String: String] = ProcessInfo.processInfo.environment,
        overrides: [(group: String, name: String, value: String)] = [], host: HostDefaults
    ) throws(ConfigurationError) -> LoadedConfiguration {
        let store = OptionStore(files: files.paths, environment: environment, overrides: overrides)
        let presets: [OptionKey: String] = [
            OptionKey(group: "DEFAULT", name: "host"): host.hostName,
            OptionKey(group: "DEFAULT", name: "my_ip"): host.address,
            OptionKey(group: "DEFAULT", name: "my_block_storage_ip"): "$my_ip",
            OptionKey(group: "DEFAULT", name: "pybasedir"): "/var/lib/nova",
            OptionKey(group: "DEFAULT", name: "state_path"): "$pybasedir",
            OptionKey(group: "DEFAULT", name: "instances_path"): "$state_path/instances",
            OptionKey(group: "apus", name: "run_directory"): "$state_path/run",
        ]
        var reader = OptionReader(store: store, presets: presets)
        let configuration = Configuration(reading: &reader)
        guard reader.problems.isEmpty else { throw ConfigurationError(problems: reader.problems) }
        return LoadedConfiguration(
            configuration: configuration, files: files.paths, notices: reader.notices,
            unknownOptions: reader.unknownOptions, effective: reader.effective)
    }

    init(reading reader: inout OptionReader) {
        let main = "DEFAULT"
        host = reader.string(main, "host", or: "")
        myIP = reader.string(main, "my_ip", or: "")
        myBlockStorageIP = reader.string(main, "my_block_storage_ip", or: "")
        statePath = reader.string(main, "state_path", or: "")
        instancesPath = reader.string(main, "instances_path", or: "")
        computeDriver = reader.string(main, "compute_driver")
        compute = ComputeOptions(reading: &reader)
        resources = ResourceOptions(reading: &reader)
        intervals = IntervalOptions(reading: &reader)
        images = ImageOptions(reading: &reader)
        network = NetworkOptions(reading: &reader)
        messaging = MessagingOptions(reading: &reader)
        notifications = NotificationOptions(reading: &reader)
        placement = ServiceClientOptions(reading: &reader, group: "placement", serviceType: "placement")
        neutron = ServiceClientOptions(reading: &reader, group: "neutron", serviceType: "network")
        glance = ServiceClientOptions(reading: &reader, group: "glance", serviceType: "image")
        serviceUser = ServiceUserOptions(
            sendsServiceUserToken: reader.flag("service_user", "send_service_user_token", or: false),
            client: ServiceClientOptions(reading: &reader, group: "service_user", serviceType: "identity"))
        logging = LoggingOptions(reading: &reader)
        apus = ApusOptions(
            monitorPath: reader.string("apus", "monitor_path"),
            metricsListen: reader.string("apus", "listen", or: "127.0.0.1:9620"),
            release: reader.string("apus", "release", or: "zed"),
            runDirectory: reader.string("apus", "run_directory", or: ""))
        if host.isEmpty || host.contains(where: { $0.isWhitespace || $0 == "/" }) {
            reader.fail(main, "host", "\"\(host)\" is no host name")
        }
    }
}

extension ComputeOptions {
    init(reading reader: inout OptionReader) {
        let main = "DEFAULT"
        instanceNameTemplate = reader.string(main, "instance_name_template", or: "instance-%08x")
        maximumConcurrentBuilds = reader.integer(main, "max_concurrent_builds", or: 10, in: 0...Int.max)
        maximumConcurrentSnapshots = reader.integer(main, "max_concurrent_snapshots", or: 5, in: 0...Int.max)
        let modes = ["host-model", "host-passthrough", "custom", "none"]
        processorMode = reader.string("libvirt", "cpu_mode").flatMap { $0.isEmpty ? nil : $0 }
        processorModels = reader.list("libvirt", "cpu_models", aliases: [OptionKey(group: "libvirt", name: "cpu_model")])
        processorFlags = reader.list("libvirt", "cpu_model_extra_flags")
        if let processorMode, !modes.contains(processorMode) {
            reader.fail("libvirt", "cpu_mode", "\"\(processorMode)\" is none of \(modes.joined(separator: ", "))")
        }
        if processorMode == "custom", processorModels.isEmpty {
            reader.fail("libvirt", "cpu_models", "cpu_mode is custom and no model is named")
        }
        ephemeralFormat = reader.string(main, "default_ephemeral_format").flatMap { $0.isEmpty ? nil : $0 }
        let format = reader.string(main, "config_drive_format", or: "iso9660")
        isConfigDriveFAT = format == "vfat"
        if !["iso9660", "vfat"].contains(format) { reader.fail(main, "config_drive_format", "\"\(format)\" is neither iso9660 nor vfat") }
        snapshotImageFormat = reader.string("libvirt", "snapshot_image_format").flatMap { $0.isEmpty ? nil : $0 }
        shelvedOffloadTime = reader.seconds(main, "shelved_offload_time", or: 0, in: -1...Int.max)
        reclaimInterval = reader.seconds(main, "reclaim_instance_interval", or: 0)
        isConfigDriveForced = reader.flag(main, "force_config_drive", or: false)
        shutdownTimeout = reader.seconds(main, "shutdown_timeout", or: 60)
        shutdownRetryInterval = reader.seconds("compute", "shutdown_retry_interval", or: 10, in: 1...Int.max)
        resumesGuestsOnHostBoot = reader.flag(main, "resume_guests_state_on_host_boot", or: false)
        softRebootTimeout = reader.seconds("libvirt", "wait_soft_reboot_seconds", or: 120)
        usesLifecycleEvents = reader.flag("workarounds", "handle_virt_lifecycle_events", or: true)
        ignoresServiceVersionFloor = reader.flag("workarounds", "disable_compute_service_check_for_ffu", or: false)
        tracksInstanceChanges = reader.flag("filter_scheduler", "track_instance_changes", or: true)
        defaultAccessIPNetworkName = reader.string(main, "default_access_ip_network_name")
        consecutiveBuildFailureLimit = reader.integer(
            "compute", "consecutive_build_service_disable_threshold", or: 10)
        runningDeletedAction = reader.choice(
            main, "running_deleted_instance_action", or: "reap", of: ["reap", "shutdown", "log", "noop"])
        runningDeletedTimeout = reader.seconds(main, "running_deleted_instance_timeout", or: 0)
        gracefulShutdownTimeout = reader.seconds(main, "graceful_shutdown_timeout", or: 60)
    }
}

extension ResourceOptions {
    init(reading reader: inout OptionReader) {
        let main = "DEFAULT"
        reservedHostCPUs = reader.integer(main, "reserved_host_cpus", or: 0, in: 0...Int.max)
        reservedHostMemoryMiB = reader.integer(main, "reserved_host_memory_mb", or: 512, in: 0...Int.max)
        reservedHostDiskMiB = reader.integer(main, "reserved_host_disk_mb", or: 0, in: 0...Int.max)
        // 0.0 is the old way to write "not set".
        cpuAllocationRatio = Self.positive(reader.double(main, "cpu_allocation_ratio"))
        ramAllocationRatio = Self.positive(reader.double(main, "ram_allocation_ratio"))
        diskAllocationRatio = Self.positive(reader.double(main, "disk_allocation_ratio"))
        initialCPUAllocationRatio = Self.positive(reader.double(main, "initial_cpu_allocation_ratio"))
        initialRAMAllocationRatio = Self.positive(reader.double(main, "initial_ram_allocation_ratio"))
        initialDiskAllocationRatio = Self.positive(reader.double(main, "initial_disk_allocation_ratio")) ?? 1.0
        cpuSharedSet = reader.string(
            "compute", "cpu_shared_set", aliases: [OptionKey(group: main, name: "vcpu_pin_set")])
        reservedHugePages = []
        for text in reader.strings(main, "reserved_huge_pages") {
            if let pages = ReservedPages(text) {
                reservedHugePages.append(pages)
            } else {
                reader.fail(main, "reserved_huge_pages", "\"\(text)\" is not of the form node:0,size:2048,count:64")
            }
        }
        associationRefresh = reader.seconds("compute", "resource_provider_association_refresh", or: 300)
        imageTypeExcludeList = reader.list("compute", "image_type_exclude_list")
    }

    private static func positive(_ value: Double?) -> Double? {
        guard let value, value > 0 else { return nil }
        return value
    }
}

extension IntervalOptions {
    init(reading reader: inout OptionReader) {
        let main = "DEFAULT"
        report = reader.seconds(main, "report_interval", or: 10, in: 1...Int.max)
        isPeriodicWorkEnabled = reader.flag(main, "periodic_enable", or: true)
        periodicFuzzyDelay = reader.seconds(main, "periodic_fuzzy_delay", or: 60)
        updateResources = reader.integer(main, "update_resources_interval", or: 0)
        syncPowerState = reader.integer(main, "sync_power_state_interval", or: 600)
        healInstanceInfoCache = reader.integer(main, "heal_instance_info_cache_interval", or: 60)
        schedulerInstanceSync = reader.integer(main, "scheduler_instance_sync_interval", or: 120)
        shelvedPoll = reader.integer(main, "shelved_poll_interval", or: 3600)
        runningDeletedPoll = reader.integer(main, "running_deleted_instance_poll_interval", or: 1800)
        resizeConfirmWindow = reader.integer(main, "resize_confirm_window", or: 0, in: 0...Int.max)
    }
}

extension ImageOptions {
    init(reading reader: inout OptionReader) {
        let main = "DEFAULT"
        isRawForced = reader.flag(main, "force_raw_images", or: true)
        usesCopyOnWrite = reader.flag(main, "use_cow_images", or: true)
        cacheSubdirectory = reader.string(
            "image_cache", "subdirectory_name", or: "_base",
            aliases: [OptionKey(group: main, name: "image_cache_subdirectory_name")])
        cacheManagerInterval = reader.integer(
            "image_cache", "manager_interval", or: 2400,
            aliases: [OptionKey(group: main, name: "image_cache_manager_interval")])
        removesUnusedBaseImages = reader.flag(
            "image_cache", "remove_unused_base_images", or: true,
            aliases: [OptionKey(group: main, name: "remove_unused_base_images")])
        unusedBaseImageAge = reader.seconds("image_cache", "remove_unused_original_minimum_age_seconds", or: 86400)
        glanceAPIServers = reader.list("glance", "api_servers")
        glanceRetries = reader.integer("glance", "num_retries", or: 3, in: 0...Int.max)
    }
}

extension NetworkOptions {
    init(reading reader: inout OptionReader) {
        vifPluggingTimeout = reader.seconds("DEFAULT", "vif_plugging_timeout", or: 300)
        isVIFPluggingFatal = reader.flag("DEFAULT", "vif_plugging_is_fatal", or: true)
        ovsBridge = reader.string("neutron", "ovs_bridge", or: "br-int")
        extensionSyncInterval = reader.seconds("neutron", "extension_sync_interval", or: 600)
        httpRetries = reader.integer("neutron", "http_retries", or: 3, in: 0...Int.max)
        allocateRetries = reader.integer("DEFAULT", "network_allocate_retries", or: 0, in: 0...Int.max)
    }
}

extension MessagingOptions {
    init(reading reader: inout OptionReader) {
        let main = "DEFAULT"
        let rabbit = "oslo_messaging_rabbit"
        transportURL = reader.string(main, "transport_url", or: "rabbit://")
        // oslo.messaging's default is "openstack"; Nova replaces it.
        controlExchange = reader.string(main, "control_exchange", or: "nova")
        responseTimeout = reader.seconds(main, "rpc_response_timeout", or: 60, in: 1...Int.max)
        longRPCTimeout = reader.seconds(main, "long_rpc_timeout", or: 1800, in: 1...Int.max)
        executorPoolSize = reader.integer(
            main, "executor_thread_pool_size", or: 64, in: 1...Int.max,
            aliases: [OptionKey(group: main, name: "rpc_thread_pool_size")])
        usesTLS = reader.flag(rabbit, "ssl", or: false, aliases: [OptionKey(group: rabbit, name: "rabbit_use_ssl")])
        caFile = reader.string(rabbit, "ssl_ca_file", aliases: [OptionKey(group: rabbit, name: "kombu_ssl_ca_certs")])
        certificateFile = reader.string(
            rabbit, "ssl_cert_file", aliases: [OptionKey(group: rabbit, name: "kombu_ssl_certfile")])
        keyFile = reader.string(
            rabbit, "ssl_key_file", aliases: [OptionKey(group: rabbit, name: "kombu_ssl_keyfile")])
        verifiesHostName = reader.flag(rabbit, "ssl_enforce_hostname_verification", or: false)
        loginMethod = reader.choice(
            rabbit, "rabbit_login_method", or: "AMQPLAIN", of: ["PLAIN", "AMQPLAIN", "EXTERNAL", "RABBIT-CR-DEMO"])
        heartbeatTimeout = reader.integer(rabbit, "heartbeat_timeout_threshold", or: 60, in: 0...65_535)
        heartbeatRate = reader.integer(rabbit, "heartbeat_rate", or: 2, in: 1...60)
        retryInterval = reader.integer(rabbit, "rabbit_retry_interval", or: 1, in: 1...Int.max)
        retryBackoff = reader.integer(rabbit, "rabbit_retry_backoff", or: 2, in: 0...Int.max)
        retryIntervalMaximum = reader.integer(rabbit, "rabbit_interval_max", or: 30, in: 1...Int.max)
        reconnectDelay = reader.double(rabbit, "kombu_reconnect_delay") ?? 1.0
        missingConsumerRetryTimeout = reader.seconds(rabbit, "kombu_missing_consumer_retry_timeout", or: 60)
        isFailoverShuffled =
            reader.choice(rabbit, "kombu_failover_strategy", or: "round-robin", of: ["round-robin", "shuffle"])
            == "shuffle"
        areQueuesDurable = reader.flag(
            rabbit, "amqp_durable_queues", or: false, aliases: [OptionKey(group: main, name: "amqp_durable_queues")])
        areQueuesAutoDeleted = reader.flag(
            rabbit, "amqp_auto_delete", or: false, aliases: [OptionKey(group: main, name: "amqp_auto_delete")])
        areQueuesMirrored = reader.flag(rabbit, "rabbit_ha_queues", or: false)
        isQuorumQueue = reader.flag(rabbit, "rabbit_quorum_queue", or: false)
        quorumDeliveryLimit = reader.integer(rabbit, "rabbit_quorum_delivery_limit", or: 0, in: 0...Int.max)
        quorumMaximumMemoryLength = reader.integer(
            rabbit, "rabbit_quorum_max_memory_length", or: 0, in: 0...Int.max,
            aliases: [OptionKey(group: rabbit, name: "rabbit_quroum_max_memory_length")])
        quorumMaximumMemoryBytes = reader.integer(
            rabbit, "rabbit_quorum_max_memory_bytes", or: 0, in: 0...Int.max,
            aliases: [OptionKey(group: rabbit, name: "rabbit_quroum_max_memory_bytes")])
        transientQueueTTL = reader.integer(rabbit, "rabbit_transient_queues_ttl", or: 1800, in: 1...2_147_483)
        prefetchCount = reader.integer(rabbit, "rabbit_qos_prefetch_count", or: 0, in: 0...65_535)
        connectionPoolSize = reader.integer(
            rabbit, "rpc_conn_pool_size", or: 30, in: 1...Int.max,
            aliases: [OptionKey(group: main, name: "rpc_conn_pool_size")])
    }
}

extension NotificationOptions {
    init(reading reader: inout OptionReader) {
        let transport = "oslo_messaging_notifications"
        drivers = reader.strings(
            transport, "driver", aliases: [OptionKey(group: "DEFAULT", name: "notification_driver")])
        topics = reader.list(transport, "topics", or: ["notifications"])
        transportURL = reader.string(transport, "transport_url")
        versionedTopics = reader.list(
            "notifications", "versioned_notifications_topics", or: ["versioned_notifications"])
        format = reader.choice(
            "notifications", "notification_format", or: "unversioned", of: ["unversioned", "versioned", "both"],
            aliases: [OptionKey(group: "DEFAULT", name: "notification_format")])
        defaultLevel = reader.choice(
            "notifications", "default_level", or: "INFO", of: ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"],
            aliases: [OptionKey(group: "DEFAULT", name: "default_notification_level")])
        notifiesOnStateChange = reader.string(
            "notifications", "notify_on_state_change",
            aliases: [OptionKey(group: "DEFAULT", name: "notify_on_state_change")])
    }
}

extension ServiceClientOptions {
    /// Options that `auth_section` moves elsewhere: in the section itself they are without effect, but not unknown.
    private static let identityOptions = [
        "auth_type", "auth_url", "username", "user_id", "password", "user_domain_name", "user_domain_id",
        "project_name",
        "project_id", "project_domain_name", "project_domain_id", "default_domain_name", "default_domain_id",
    ]

    /// `auth_section` names the section that the credentials are in instead.
    init(reading reader: inout OptionReader, group: String, serviceType: String) {
        let auth = reader.string(group, "auth_section").map(INIParser.normalizedGroup) ?? group
        if auth != group { reader.recognize(group, Self.identityOptions) }
        authType = reader.string(auth, "auth_type", aliases: [OptionKey(group: auth, name: "auth_plugin")])
        authURL = reader.string(auth, "auth_url")
        username = reader.string(auth, "username", aliases: [OptionKey(group: auth, name: "user_name")])
        userID = reader.string(auth, "user_id")
        password = reader.string(auth, "password")
        userDomainName = reader.string(auth, "user_domain_name")
        userDomainID = reader.string(auth, "user_domain_id")
        projectName = reader.string(auth, "project_name", aliases: [OptionKey(group: auth, name: "tenant_name")])
        projectID = reader.string(auth, "project_id", aliases: [OptionKey(group: auth, name: "tenant_id")])
        projectDomainName = reader.string(auth, "project_domain_name")
        projectDomainID = reader.string(auth, "project_domain_id")
        if let name = reader.string(auth, "default_domain_name") {
            if userDomainName == nil, userDomainID == nil { userDomainName = name }
            if projectDomainName == nil, projectDomainID == nil { projectDomainName = name }
        }
        if let id = reader.string(auth, "default_domain_id") {
            if userDomainName == nil, userDomainID == nil { userDomainID = id }
            if projectDomainName == nil, projectDomainID == nil { projectDomainID = id }
        }
        regionName = reader.string(group, "region_name")
        validInterfaces = reader.list(group, "valid_interfaces", or: ["internal", "public"])
        self.serviceType = reader.string(group, "service_type", or: serviceType)
        serviceName = reader.string(group, "service_name")
        endpointOverride = reader.string(group, "endpoint_override")
        caFile = reader.string(group, "cafile")
        certificateFile = reader.string(group, "certfile")
        keyFile = reader.string(group, "keyfile")
        isInsecure = reader.flag(group, "insecure", or: false)
        timeout = reader.double(group, "timeout")
        let retries = reader.integer(group, "connect_retries", or: -1)
        connectRetries = retries >= 0 ? retries : nil
        if let authType, !["password", "v3password"].contains(authType) {
            reader.fail(auth, "auth_type", "\"\(authType)\" is not supported; this service can use \"password\"")
        }
    }
}

extension LoggingOptions {
    init(reading reader: inout OptionReader) {
        let main = "DEFAULT"
        isDebug = reader.flag(main, "debug", or: false)
        let directory = reader.string(main, "log_dir", aliases: [OptionKey(group: main, name: "logdir")])
        let name = reader.string(main, "log_file", aliases: [OptionKey(group: main, name: "logfile")])
        switch (directory, name) {
        case (let directory?, let name?) where !name.hasPrefix("/"): file = "\(directory)/\(name)"
        case (_, let name?): file = name
        case (let directory?, nil): file = "\(directory)/nova-compute.log"
        case (nil, nil): file = nil
        }
        usesStandardError = reader.flag(main, "use_stderr", or: false)
        contextFormat = reader.string(main, "logging_context_format_string", or: Self.defaultContextFormat)
        defaultFormat = reader.string(main, "logging_default_format_string", or: Self.defaultDefaultFormat)
        debugSuffix = reader.string(main, "logging_debug_format_suffix", or: "%(funcName)s %(pathname)s:%(lineno)d")
        instanceFormat = reader.string(main, "instance_format", or: "[instance: %(uuid)s] ")
    }
}
