// swift-tools-version: 6.2
import PackageDescription

// One package, one written order of targets: a target can import only what it lists here, so the direction of
// dependencies is kept by the compiler. README.md draws the same picture.

// APUS_PARTS=monitor, messaging or service leaves the rest of the package out, so that work on a device or on the wire
// format does not pay for the HTTP stack (minutes). "service" includes "messaging". Unset: everything.
// "fuzz": the monitor with the targets that Tests/Lab/fuzz runs; nothing else has them, since they need -sanitize=fuzzer.
let parts = Context.environment["APUS_PARTS"] ?? "all"
let withMonitor = ["all", "monitor", "fuzz"].contains(parts)
let withFuzz = parts == "fuzz"
let withMessaging = ["all", "messaging", "service"].contains(parts)
let withService = ["all", "service"].contains(parts)

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),  // SE-0335: an existential is visible where it costs
    .enableUpcomingFeature("MemberImportVisibility"),  // SE-0444: an import is written where it is used
    .enableUpcomingFeature("InternalImportsByDefault"),  // SE-0409: a dependency does not leak by accident
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),  // SE-0461: async functions stay on the caller's actor
    .enableExperimentalFeature("Lifetimes"),  // spans over our own memory
    .strictMemorySafety(),  // SE-0458: each unsafe use says so
    .treatAllWarnings(as: .error),
]
// Tests exercise the same language mode but may touch raw memory without a marker.
let strictTests: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = []) -> Target {
    .target(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: strict)
}
/// Decompresses and scans whole disks: without optimisation a hundred times slower, which a debug build of the service would feel.
func optimizedModule(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: name, dependencies: dependencies,
        swiftSettings: strict + [.unsafeFlags(["-O"], .when(configuration: .debug))])
}
func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}
func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = [], resources: [Resource] = []) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, exclude: exclude, resources: resources, swiftSettings: strictTests)
}

// What both halves use: the values they speak, and disk images. No Foundation.
let sharedTargets: [Target] = [
    .target(name: "CLinux"),
    module("HostSystem", ["CLinux"]),
    optimizedModule("DiskImage", ["CLinux", "HostSystem"]),
    module("JSON"),
    module("MachineConfiguration", ["JSON"]),
    module("MonitorProtocol", ["JSON", "MachineConfiguration"]),
    tests("JSONTests", ["JSON"]),
    tests("MonitorProtocolTests", ["JSON", "MachineConfiguration", "MonitorProtocol"]),
]

// The machine monitor: threads, epoll, atomics. No Foundation, no NIO, no async.
let monitorTargets: [Target] = [
    .target(name: "CKVM"),
    module("GuestMemory", ["HostSystem"]),
    module("MachineCore", ["HostSystem", "GuestMemory"]),
    module("KVM", ["CKVM", "HostSystem", "GuestMemory", "MachineCore"]),
    module("PCI", ["MachineCore", "HostSystem", "GuestMemory"]),
    module("NetworkBackend", ["CLinux", "HostSystem"]),
    module("Storage", ["PCI", "MachineCore", "GuestMemory", "HostSystem", "DiskImage"]),
    module("VirtIO", ["Storage", "PCI", "MachineCore", "GuestMemory", "HostSystem", "DiskImage", "NetworkBackend"]),
    module("Chipset", ["PCI", "MachineCore", "HostSystem", "GuestMemory"]),
    module("Firmware", ["GuestMemory", "HostSystem", "MachineCore"]),
    module(
        "Machine",
        [
            "HostSystem", "GuestMemory", "MachineCore", "KVM", "PCI", "VirtIO", "Storage", "Chipset", "Firmware",
            "DiskImage", "NetworkBackend", "MachineConfiguration", "MonitorProtocol", "JSON",
        ]),
    program(
        "apus-vmm",
        ["Machine", "KVM", "Chipset", "HostSystem", "NetworkBackend", "MachineConfiguration", "MonitorProtocol"]),
    // What several of the tests below are made with; no program links it.
    .target(name: "MachineTesting", dependencies: ["MachineCore", "HostSystem", "PCI", "GuestMemory"], path: "Tests/MachineTesting", swiftSettings: strictTests),
    tests("HostSystemTests", ["HostSystem", "CLinux"]),
    tests("GuestMemoryTests", ["GuestMemory", "HostSystem"]),
    tests("MachineCoreTests", ["MachineCore", "HostSystem", "GuestMemory"]),
    tests("KVMTests", ["KVM", "MachineCore"]),
    tests("PCITests", ["MachineTesting", "PCI", "MachineCore", "HostSystem", "GuestMemory"]),
    tests("DiskImageTests", ["DiskImage", "HostSystem"]),
    tests("NetworkBackendTests", ["NetworkBackend", "HostSystem"]),
    tests(
        "VirtIOTests",
        ["MachineTesting", "VirtIO", "Storage", "PCI", "MachineCore", "GuestMemory", "HostSystem", "DiskImage", "NetworkBackend"]),
    tests("StorageTests", ["MachineTesting", "Storage", "PCI", "MachineCore", "GuestMemory", "HostSystem", "DiskImage"]),
    tests("ChipsetTests", ["MachineTesting", "Chipset", "PCI", "GuestMemory", "MachineCore", "HostSystem"]),
    tests("FirmwareTests", ["Firmware", "GuestMemory", "HostSystem", "MachineCore"]),
    tests(
        "MachineTests",
        [
            "MachineTesting", "Machine", "KVM", "MachineCore", "GuestMemory", "HostSystem", "MachineConfiguration", "MonitorProtocol",
            "JSON", "Chipset", "PCI", "NetworkBackend", "VirtIO",
        ], exclude: ["Golden", "LoadGuest", "SavedStates"]),
]

// libFuzzer on the monitor's parsers and devices: one program, whose target is chosen by name.
let fuzzTargets: [Target] = [
    .systemLibrary(name: "CFuzzer", path: "Tests/Fuzz/CFuzzer"),
    .executableTarget(
        name: "fuzz",
        dependencies: [
            "CFuzzer", "Machine", "MachineCore", "GuestMemory", "HostSystem", "DiskImage", "NetworkBackend", "PCI", "VirtIO",
            "Storage", "Chipset", "Firmware", "JSON", "MachineConfiguration", "MonitorProtocol",
        ],
        path: "Tests/Fuzz", exclude: ["CFuzzer", "Corpus", "make-seeds"], swiftSettings: strictTests),
]

let log: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let signals: Target.Dependency = .product(name: "UnixSignals", package: "swift-service-lifecycle")
let http: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let tls: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOHTTP1", package: "swift-nio"),
]

// Messages and objects of the service: the wire contract, without the HTTP stack.
let messagingTargets: [Target] = [
    .systemLibrary(
        name: "CRabbitMQ", pkgConfig: "librabbitmq", providers: [.apt(["librabbitmq-dev", "libssl-dev"])]),
    module("AMQP", ["CRabbitMQ", log]),
    module("OsloMessaging", ["AMQP", "JSON", log]),
    module("NovaObjects", ["JSON"]),
    module("ServiceConfiguration", [log]),
    tests("AMQPTests", ["AMQP"]),
    tests("OsloMessagingTests", ["OsloMessaging", "AMQP", "JSON", log], resources: [.copy("Peers")]),
    tests("NovaObjectsTests", ["NovaObjects", "JSON"], resources: [.copy("Samples")]),
    tests("ServiceConfigurationTests", ["ServiceConfiguration"]),
]

// The rest of the service: structured concurrency on Foundation, NIO and the server ecosystem.
let serviceTargets: [Target] = [
    module("OpenStackHTTP", ["JSON", "ServiceConfiguration", http, tls, log] + nio),
    module("Keystone", ["OpenStackHTTP", "JSON", log]),
    module("Placement", ["OpenStackHTTP", "JSON", log]),
    module("Neutron", ["OpenStackHTTP", "JSON", log]),
    module("Glance", ["OpenStackHTTP", "JSON", crypto, log] + nio),
    module("ComputeDriver", ["NovaObjects", "JSON"]),
    module(
        "Compute",
        [
            "ComputeDriver", "NovaObjects", "OsloMessaging", "ServiceConfiguration", "OpenStackHTTP", "Keystone",
            "Placement", "Neutron", "Glance", "ServiceMetrics", "JSON", lifecycle, log,
        ]),
    module(
        "MachineDriver",
        [
            "ComputeDriver", "NovaObjects", "MonitorProtocol", "MachineConfiguration", "DiskImage", "HostSystem", "JSON", "CServiceHost", crypto, log,
        ] + nio),
    .target(name: "CServiceHost"),
    module("ServiceMetrics", [lifecycle, log] + nio),
    program(
        "nova-compute",
        [
            "Compute", "MachineDriver", "ComputeDriver", "NovaObjects", "OsloMessaging", "AMQP",
            "ServiceConfiguration", "OpenStackHTTP", "Keystone", "Placement", "Neutron", "Glance", "ServiceMetrics",
            "JSON", arguments, lifecycle, signals, log,
        ] + nio),
    program(
        "apusctl", ["Compute", "MonitorProtocol", "MachineConfiguration", "ServiceConfiguration", "JSON", arguments] + nio),
    tests(
        "OpenStackHTTPTests", ["OpenStackHTTP", "Keystone", "Placement", "Neutron", "Glance", "JSON"] + nio),
    tests(
        "ComputeTests",
        [
            "Compute", "ComputeDriver", "NovaObjects", "OsloMessaging", "ServiceConfiguration", "OpenStackHTTP", "Keystone",
            "Placement", "Neutron", "Glance", "ServiceMetrics", "JSON", lifecycle, log,
        ], resources: [.copy("Network/Exchanges")]),
    tests(
        "MachineDriverTests",
        [
            "MachineDriver", "ComputeDriver", "NovaObjects", "MonitorProtocol", "MachineConfiguration", "JSON", "CServiceHost", log,
        ] + nio, resources: [.copy("Fixtures/fake-monitor")]),
    tests("ServiceMetricsTests", ["ServiceMetrics"] + nio),
]

let messagingDependencies: [Package.Dependency] = [
    .package(url: "https://github.com/apple/swift-log", from: "1.6.0")
]
let serviceDependencies: [Package.Dependency] = [
    .package(url: "https://github.com/apple/swift-nio", from: "2.80.0"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.30.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "3.12.0"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
    .package(url: "https://github.com/swift-server/async-http-client", from: "1.25.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.6.0"),
]

let package = Package(
    name: "apus",
    products: (withMonitor ? [.executable(name: "apus-vmm", targets: ["apus-vmm"])] : [])
        + (withService
            ? [
                .executable(name: "nova-compute", targets: ["nova-compute"]),
                .executable(name: "apusctl", targets: ["apusctl"]),
            ] : []),
    dependencies: (withMessaging ? messagingDependencies : []) + (withService ? serviceDependencies : []),
    targets: sharedTargets + (withMonitor ? monitorTargets : []) + (withFuzz ? fuzzTargets : []) + (withMessaging ? messagingTargets : [])
        + (withService ? serviceTargets : []),
    swiftLanguageModes: [.v6]
)
