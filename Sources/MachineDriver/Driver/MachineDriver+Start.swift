// Starting a monitor on a machine's directory: taps, sockets and files become descriptors, and the monitor gets nothing else.
import CServiceHost
import ComputeDriver
import Glibc
import JSON
import MachineConfiguration
import MonitorProtocol
import Synchronization

/// A monitor that did not come up, with what it said.
struct MonitorStartFailure: Error, CustomStringConvertible {
    let cause: any Error
    let status: CInt?
    let log: String

    var description: String {
        "\(cause)" + (status.map { "; it ended with wait status \($0)" } ?? "")
            + (log.isEmpty ? "" : "; it said: \(log)")
    }
}

/// What a monitor inherits, in the order of its descriptors from 3 on.
private struct Inheritance {
    private(set) var descriptors: [Descriptor] = []

    /// The number it has in the monitor.
    mutating func add(_ descriptor: Descriptor) -> Int {
        descriptors.append(descriptor)
        return descriptors.count + 2
    }
}

extension MachineDriver {
    /// Starts the machine of a complete directory, or has it go on from a saved state. On failure there is no process, no tap, no socket.
    func start(_ machine: SavedMachine, isPaused: Bool, restoring state: Descriptor? = nil) async throws {
        try Task.checkCancellation()
        let uuid = machine.uuid
        do {
            let session = try await blocking { [self] in try launch(machine, isPaused: isPaused, restoring: state) }
            do {
                try await session.connect(timeout: options.startTimeout).cancellableValue()
                session.setEndAsked(false)
                guard !session.isGone, session.runState == .running || session.runState == .paused else {
                    throw HostFailure("start", "the machine", errno: ECHILD, remedy: "it ended at once")
                }
            } catch {
                if error is CancellationError {
                    await session.kill()
                    throw error
                }
                // One that is about to end tells why by its own status.
                _ = try? await session.ended.value(within: .seconds(1))
                let status = session.endStatus
                await session.kill()
                let log = try await blocking { [self] in directory(uuid).monitorLogTail() }
                throw MonitorStartFailure(cause: error, status: status, log: log)
            }
        } catch {
            _ = try? await uncancelled { [self] in await unplug(machine.interfaces, of: uuid) }
            throw error
        }
    }

    /// Blocking part: everything up to the running process and its session.
    private func launch(_ machine: SavedMachine, isPaused: Bool, restoring state: Descriptor?) throws -> MonitorSession {
        let directory = directory(machine.uuid)
        let run = try makeRun(of: machine.uuid)
        try endStray(of: machine.uuid)
        do {
            var inheritance = Inheritance()
            let memory = unsafe apus_host_memfd("machine")
            guard memory >= 0 else { throw HostFailure("make", "the machine's description") }
            let description = Descriptor(owning: memory)
            let place = inheritance.add(description)
            var configuration = try configure(machine, directory, run, isPaused: isPaused, &inheritance)
            if let state { configuration.restore = inheritance.add(state) }
            try Files.append(configuration.json.serializedBytes(), to: description, named: "the machine's description")
            guard lseek(memory, 0, SEEK_SET) == 0 else { throw HostFailure("rewind", "the machine's description") }
            let log = try directory.openMonitorLog()
            try directory.save(run)
            // The first word is what `ps` shows: whose machine it is.
            let process = try MonitorProcess.start(
                options.monitorPath,
                arguments: ["apus-vmm \(machine.name) \(machine.uuid)", "--machine", "fd:\(place)"],
                descriptors: inheritance.descriptors, errors: log)
            do {
                try directory.save(process.identity)
                return try adopt(process, of: machine.uuid, run: run, isPaused: isPaused)
            } catch {
                process.kill()
                _ = apus_host_wait_end(process.pidfd.rawValue, 10_000)
                _ = process.reap()
                throw error
            }
        } catch {
            removeSockets(of: run)
            try? directory.save(nil as ProcessIdentity?)
            throw error
        }
    }

    /// Ends a monitor that is in no session: one that could not be examined when this service began. Blocking.
    func endStray(of uuid: String) throws {
        guard session(uuid) == nil, let identity = try directory(uuid).process(),
            let process = try MonitorProcess.find(identity)
        else { return }
        process.kill()
        guard apus_host_wait_end(process.pidfd.rawValue, 10_000) == 1 else {
            throw HostFailure("end process", "\(identity.pid)", errno: ETIMEDOUT)
        }
        _ = process.reap()
    }

    /// A session in the table, its end watched; not connected yet.
    func adopt(_ process: MonitorProcess, of uuid: String, run: MachineRun, isPaused: Bool) throws -> MonitorSession {
        let session = MonitorSession(
            process: process, socketPath: run.controlSocket, runState: isPaused ? .paused : .running,
            commandTimeout: options.commandTimeout, quitTimeout: options.quitTimeout
        ) { [weak self] session, news in self?.receive(news, of: uuid, from: session) }
        sessions.withLock { $0[uuid] = session }
        do { try session.watch() } catch {
            sessions.withLock { $0[uuid] = nil }
            throw error
        }
        return session
    }

    func makeRun(of uuid: String) throws -> MachineRun {
        MachineRun(
            bootID: try HostFacts.bootID(), controlSocket: "\(options.runDirectory)/\(uuid).control",
            consoleSocket: "\(options.runDirectory)/\(uuid).console")
    }

    func removeSockets(of run: MachineRun) {
        unsafe unlink(run.controlSocket)
        unsafe unlink(run.consoleSocket)
    }

    private func configure(
        _ machine: SavedMachine, _ directory: InstanceDirectory, _ run: MachineRun, isPaused: Bool,
        _ inheritance: inout Inheritance
    ) throws -> GuestConfiguration {
        guard let uuid = MachineUUID(machine.uuid) else { throw DriverError.instanceNotFound(machine.uuid) }
        var configuration = GuestConfiguration(
            name: machine.name, uuid: uuid, memoryMiB: machine.memoryMiB,
            cpu: CPUConfiguration(
                count: machine.vcpus, sockets: machine.sockets, cores: machine.cores, threads: machine.threads))
        machine.processor.apply(to: &configuration.cpu)
        machine.devices.apply(to: &configuration.board)
        try machine.applyNodes(to: &configuration, hostNodeCount: try HostFacts.nodeCount())
        if let firmware = machine.firmware {
            configuration.type = MachineType(rawValue: machine.machineType) ?? .q35
            configuration.firmware = try open(firmware, directory.variables(machine.bootSuffix), &inheritance)
        } else {
            configuration.kernel = inheritance.add(try Descriptor(opening: directory.kernel(machine.bootSuffix), O_RDONLY))
        }
        if machine.hasRAMDisk {
            configuration.initrd = inheritance.add(try Descriptor(opening: directory.ramdisk(machine.bootSuffix), O_RDONLY))
        }
        configuration.commandLine = machine.commandLine
        configuration.system = SystemConfiguration(version: options.productVersion, serial: machine.uuid, uuid: uuid)
        for (index, disk) in machine.disks.enumerated() {
            let file = try Descriptor(opening: directory.file(disk.file), disk.isReadOnly ? O_RDONLY : O_RDWR)
            var description = DiskConfiguration(
                id: disk.id, fd: inheritance.add(file), readOnly: disk.isReadOnly, bus: DiskBus(rawValue: disk.bus) ?? .virtio,
                isOptical: disk.isOptical, bootIndex: disk.isBootedFirst ? 0 : index + 1)
            if !disk.isReadOnly { description.limits = DiskQuota.limits(machine.diskLimits) }
            configuration.disks.append(description)
        }
        for interface in machine.interfaces {
            let plan = try PlugPlan(interface)
            let queues = try plugger.plug(interface, instanceUUID: machine.uuid, queueCount: machine.queueCount)
            configuration.networks.append(
                NetworkConfiguration(
                    id: interface.deviceName, fds: queues.map { inheritance.add($0) }, mac: plan.mac,
                    mtu: interface.mtu ?? 1500))
        }
        configuration.rng = machine.hasEntropy
        configuration.balloon = true
        let console = try Descriptor(opening: directory.consoleLog, O_RDWR | O_CREAT | O_TRUNC)
        configuration.console = ConsoleConfiguration(
            log: inheritance.add(console), logLimitBytes: options.consoleLimitBytes,
            listen: inheritance.add(try listen(at: run.consoleSocket)))
        configuration.control = inheritance.add(try listen(at: run.controlSocket))
        configuration.kvm = inheritance.add(try openKVM())
        configuration.startPaused = isPaused
        return configuration
    }

    private func open(
        _ firmware: SavedMachine.Firmware, _ variables: String, _ inheritance: inout Inheritance
    ) throws -> FirmwareConfiguration {
        let path = firmware == .bios ? options.biosPath : options.firmwareCodePath
        let code: Descriptor
        do { code = try Descriptor(opening: path, O_RDONLY) } catch {
            throw HostFailure("open", path, errno: error.errno, remedy: "install the distribution's \(firmware == .bios ? "seabios" : "ovmf")")
        }
        var configuration = FirmwareConfiguration(code: inheritance.add(code))
        if firmware == .uefi { configuration.variables = inheritance.add(try Descriptor(opening: variables, O_RDWR)) }
        return configuration
    }

    private func openKVM() throws(HostFailure) -> Descriptor {
        do { return try Descriptor(opening: options.kvmPath, O_RDWR) } catch {
            throw HostFailure(
                "open", options.kvmPath, errno: error.errno,
                remedy: "virtualisation must be on, and the kvm module loaded")
        }
    }

    private func listen(at path: String) throws(HostFailure) -> Descriptor {
        let listener = unsafe apus_host_listen(path)
        guard listener >= 0 else {
            throw HostFailure(
                "listen at", path, remedy: errno == ENAMETOOLONG ? "set [apus] run_directory to a shorter path" : "")
        }
        return Descriptor(owning: listener)
    }
}
