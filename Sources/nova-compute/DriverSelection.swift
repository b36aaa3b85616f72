// Which driver runs the machines, by `compute_driver` as existing files have it.
import ComputeDriver
import Foundation
import JSON
import Logging
import MachineDriver
import ServiceConfiguration

struct DriverSelection: Sendable {
    let driver: any ComputeDriver
    /// `instance_name_template` with an instance's id.
    let instanceName: @Sendable (Int) -> String

    init(_ configuration: Configuration, logger: Logger) throws {
        var options = MachineDriverOptions(
            instancesPath: configuration.instancesPath, cacheSubdirectory: configuration.images.cacheSubdirectory,
            monitorPath: configuration.apus.monitorPath ?? Self.monitorPath(),
            runDirectory: configuration.apus.runDirectory,
            instanceNameTemplate: configuration.compute.instanceNameTemplate)
        let compute = configuration.compute
        options.processor = ProcessorOptions(
            mode: compute.processorMode, models: compute.processorModels, flags: compute.processorFlags)
        options.ephemeralFormat = compute.ephemeralFormat
        options.isConfigDriveFAT = compute.isConfigDriveFAT
        instanceName = { [options] id in options.instanceName(id: id) }
        switch configuration.computeDriver {
        case nil, "apus", "libvirt.LibvirtDriver", "nova.virt.libvirt.LibvirtDriver":
            driver = MachineDriver(options: options, logger: logger)
        case let name? where name.hasPrefix("fake."):
            driver = NullDriver(resources: Self.fakeResources(configuration.host))
        case let name?:
            throw ConfigurationError(problems: [
                "[DEFAULT] compute_driver: \"\(name)\" is not available; \"apus\" or \"libvirt.LibvirtDriver\" is this program's own"
            ])
        }
    }

    /// Beside this program, then in PATH.
    private static func monitorPath() -> String {
        let own =
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/usr/bin/nova-compute"
        var folders = [URL(filePath: own).deletingLastPathComponent().path]
        folders += (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
        return folders.map { $0 + "/apus-vmm" }.first { FileManager.default.isExecutableFile(atPath: $0) }
            ?? "/usr/bin/apus-vmm"
    }

    private static func fakeResources(_ host: String) -> HostResources {
        HostResources(
            vcpus: 8, memoryMiB: 16384, diskGiB: 100, diskFreeGiB: 100, hypervisorType: "fake",
            hypervisorVersion: 1_000_000,
            cpuInfo: [
                "arch": "x86_64", "model": "none", "vendor": "none", "features": [],
                "topology": ["sockets": 1, "cores": 8, "threads": 1],
            ],
            supportedInstances: [["x86_64", "fake", "hvm"]], hypervisorHostname: host)
    }
}
