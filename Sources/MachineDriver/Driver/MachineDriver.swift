// The driver on our own monitor. This file: what it holds and how its parts meet; one file for each group of operations.
//
// The happy path of spawn: plan (pure) → images into the cache → a draft of the instance's directory, disks, config drive,
// machine.json → the directory gets its name → taps, sockets, descriptors → process, pid file, watch → connection, status.
// Each step undoes itself where a later one fails; the first cause is what is told.
package import ComputeDriver
import JSON
package import Logging
import MachineConfiguration
import MonitorProtocol
import Synchronization

/// One `apus-vmm` process per guest. Usage: `initialize` once, then the operations of `ComputeDriver`.
package final class MachineDriver: ComputeDriver {
    let options: MachineDriverOptions
    let logger: Logger
    let cache: ImageCache
    let plugger: LinkPlugger
    let locks = KeyedLocks()
    /// The monitors that run, by instance.
    let sessions = Mutex<[String: MonitorSession]>([:])
    private let eventSink: AsyncStream<LifecycleEvent>.Continuation
    package let events: AsyncStream<LifecycleEvent>
    package let traits: Set<String>

    package init(options: MachineDriverOptions, logger: Logger) {
        self.options = options
        self.logger = logger
        cache = ImageCache(directory: "\(options.instancesPath)/\(options.cacheSubdirectory)")
        plugger = LinkPlugger(ovsPath: options.ovsPath)
        (events, eventSink) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(4096))
        let cpuinfo = (try? Files.text("/proc/cpuinfo")).flatMap { $0 } ?? ""
        traits = Traits.of(ProcessorInfo(cpuinfo: cpuinfo))
    }

    deinit { eventSink.finish() }

    func directory(_ uuid: String) -> InstanceDirectory {
        InstanceDirectory(instancesPath: options.instancesPath, uuid: uuid)
    }

    /// The uuid where it is one: it becomes a path.
    func checked(_ uuid: String) throws(DriverError) -> String {
        guard MachineUUID(uuid)?.description == uuid else { throw DriverError.instanceNotFound(uuid) }
        return uuid
    }

    func session(_ uuid: String) -> MonitorSession? { sessions.withLock { $0[uuid] } }

    /// The session of a machine that runs or is paused.
    func runningSession(_ uuid: String) throws(DriverError) -> MonitorSession {
        guard let session = session(try checked(uuid)), !session.isGone else {
            guard directory(uuid).exists else { throw DriverError.instanceNotFound(uuid) }
            throw DriverError(
                novaClass: "InstanceNotRunning", tenantMessage: "Instance \(uuid) is not running.", fault: .caller)
        }
        return session
    }

    /// Faults of this driver's own layers become `DriverError`; what came from the caller passes as it is.
    func translatingErrors<Result: Sendable>(
        while task: String, _ body: () async throws -> Result
    ) async throws -> Result {
        do { return try await body() } catch { throw DriverError.translated(error, while: task) }
    }

    /// Forgets the monitors that run, as a service that ends does; they run on.
    func abandonSessions() {
        for session in sessions.withLock({ sessions in
            defer { sessions = [:] }
            return Array(sessions.values)
        }) { session.abandon() }
    }

    // MARK: News of machines

    /// Called on the watch's thread, or on an event loop for news without file work.
    func receive(_ news: MachineNews, of uuid: String, from session: MonitorSession) {
        switch news {
        case .paused: eventSink.yield(.paused(uuid))
        case .resumed: eventSink.yield(.resumed(uuid))
        case .ended(let end, let isAsked, let status):
            recordEnd(end, of: uuid)
            let isCurrent = sessions.withLock { sessions in
                guard sessions[uuid] === session else { return false }
                sessions[uuid] = nil
                return true
            }
            guard isCurrent, !isAsked else { return }
            if end == .crashed {
                logger.error(
                    "a machine's monitor ended unasked",
                    metadata: [
                        "instance": "\(uuid)", "pid": "\(session.process.identity.pid)",
                        "status": "\(status.map { "\($0)" } ?? "unknown")",
                        "log": "\(directory(uuid).monitorLogTail(byteCount: 512))",
                    ])
            }
            eventSink.yield(end == .crashed ? .crashed(uuid) : .stopped(uuid))
        }
    }

    /// What the directory must remember of a process that is gone. A directory that is gone too needs nothing.
    private func recordEnd(_ end: MachineRun.End, of uuid: String) {
        let directory = directory(uuid)
        guard directory.exists, var run = try? directory.run() else { return }
        run.end = end
        removeSockets(of: run)
        do {
            try directory.save(run)
            try directory.save(nil as ProcessIdentity?)
        } catch {
            logger.warning("could not record a machine's end", metadata: ["instance": "\(uuid)", "error": "\(error)"])
        }
    }
}

extension DriverError {
    /// `error` as the failure of `task`, where it came from this driver's layers; else itself.
    static func translated(_ error: any Error, while task: String) -> any Error {
        switch error {
        case is HostFailure: return DriverError(error, while: task)
        case is MonitorFault:
            return DriverError(
                novaClass: "InternalError", tenantMessage: "Could not \(task): its machine monitor did not do it.",
                operatorMessage: "could not \(task): \(error)", fault: .host)
        case let error as MonitorStartFailure:
            return DriverError(
                novaClass: "InstanceDeployFailure",
                tenantMessage:
                    "Could not \(task): the machine monitor did not start. The operator finds the reason in the log.",
                operatorMessage: "could not \(task): \(error)", fault: .host)
        case let error as ImageCut:
            return DriverError(
                novaClass: "ImageUnacceptable",
                tenantMessage: "Image \(error.imageID) is unacceptable: its data is incomplete.",
                operatorMessage: "could not \(task): \(error)", fault: .peer)
        case let error as ConfigDriveError:
            return DriverError(
                novaClass: "ConfigDriveUnknownFormat", tenantMessage: "Could not \(task): \(error).", fault: .caller)
        case is JSONMemberError:
            return DriverError(
                novaClass: "InternalError", tenantMessage: "Could not \(task): its machine monitor did not do it.",
                operatorMessage: "could not \(task): \(error)", fault: .host)
        default: return error
        }
    }
}
