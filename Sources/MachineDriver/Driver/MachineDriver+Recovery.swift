// The start of this service: what an earlier run left half done goes, and the machines that run are found again. They ran on
// meanwhile; what they did is read from their monitors, or from what is left of them.
import ComputeDriver
import Glibc
import Logging
import MachineConfiguration
import MonitorProtocol

extension MachineDriver {
    package func initialize() async throws {
        try await translatingErrors(while: "prepare this host") {
            let uuids = try await blocking { [self] in try prepareHost() }
            await withTaskGroup(of: Void.self) { group in
                for uuid in uuids { group.addTask { await self.recover(uuid) } }
            }
            try await endOrphans(besides: Set(uuids))
        }
    }

    private func prepareHost() throws -> [String] {
        for directory in [options.instancesPath, cache.directory] { try Files.makeDirectories(directory) }
        try Files.makeDirectories(options.runDirectory, mode: 0o700)
        guard unsafe access(options.monitorPath, X_OK) == 0 else {
            throw HostFailure(
                "find the machine monitor", options.monitorPath, remedy: "set [apus] monitor_path in nova.conf")
        }
        try InstanceDirectory.removeDrafts(in: options.instancesPath)
        try InstanceDirectory.finishPuttingBack(in: options.instancesPath)
        try cache.removeParts()
        return try instanceUUIDs()
    }

    /// One machine that cannot be read must not keep the others from being found.
    private func recover(_ uuid: String) async {
        do {
            guard session(uuid) == nil else { return }
            let directory = directory(uuid)
            let run = try await blocking { [self] in try directory.run() ?? makeRun(of: uuid) }
            if let process = try await findProcess(of: uuid, run: run) {
                let session = try await blocking { [self] in
                    try directory.save(process.identity)
                    return try adopt(process, of: uuid, run: run, isPaused: false)
                }
                do {
                    try await session.connect(timeout: options.commandTimeout).cancellableValue()
                    // It went off while nobody looked: by the time operations begin it is gone.
                    if session.runState == .shutdown || session.runState == .internalError { try await session.end() }
                } catch {
                    logger.warning(
                        "a running monitor does not answer yet",
                        metadata: ["instance": "\(uuid)", "pid": "\(process.identity.pid)", "error": "\(error)"])
                    session.reconnectLater()
                }
                session.setEndAsked(false)
                return
            }
            try await blocking { [self] in
                try directory.save(nil as ProcessIdentity?)
                guard run.end == nil else { return }
                // It ended while nobody looked, and not by the guest: such a monitor waits. Or the host was started anew.
                var ended = run
                ended.end = try run.bootID == HostFacts.bootID() ? .crashed : .shutdown
                removeSockets(of: run)
                try directory.save(ended)
            }
        } catch {
            logger.error("could not find out about a machine", metadata: ["instance": "\(uuid)", "error": "\(error)"])
        }
    }

    /// By its pid file; else by its socket, for a service that ended between the start and the file.
    private func findProcess(of uuid: String, run: MachineRun) async throws -> MonitorProcess? {
        let known = try await blocking { [self] in
            try directory(uuid).process().flatMap { try MonitorProcess.find($0) }
        }
        if let known { return known }
        return try await process(listeningAt: run.controlSocket, of: uuid)
    }

    /// Nil where nobody listens.
    private func process(listeningAt path: String, of uuid: String) async throws -> MonitorProcess? {
        guard try await blocking({ Files.exists(path) }) else { return nil }
        guard let status = try? await MonitorSession.askStatus(at: path, timeout: .seconds(5)), status.uuid == uuid,
            let pid = Int32(exactly: status.pid)
        else { return nil }
        return try await blocking { try ProcessIdentity(pid: pid).flatMap { try MonitorProcess.find($0) } }
    }

    /// Monitors without a directory: their instance was being made or removed when the service ended.
    private func endOrphans(besides known: Set<String>) async throws {
        let suffix = ".control"
        for name in try await blocking({ [options] in try Files.names(in: options.runDirectory) })
        where name.hasSuffix(suffix) {
            let uuid = String(name.dropLast(suffix.count))
            guard !known.contains(uuid), (try? checked(uuid)) != nil else { continue }
            let run = try await blocking { [self] in try makeRun(of: uuid) }
            if let process = try await process(listeningAt: run.controlSocket, of: uuid) {
                logger.warning(
                    "ending a monitor without an instance",
                    metadata: ["instance": "\(uuid)", "pid": "\(process.identity.pid)"])
                process.kill()
            }
            try await blocking { [self] in removeSockets(of: run) }
        }
    }
}

extension MonitorSession {
    /// Asks whoever listens at `path`.
    static func askStatus(at path: String, timeout: Duration) async throws -> MachineStatus {
        let connection = try await MonitorConnection.open(
            path, on: MonitorSession.anyLoop, timeout: timeout, onEvent: { _ in }, onClose: {}
        ).cancellableValue()
        defer { connection.close() }
        return try MachineStatus(json: try await connection.execute(.status, timeout: timeout))
    }
}
