// Off, on, pause, reboot, destroy.
package import ComputeDriver
import Logging
import MonitorProtocol
package import NovaObjects

extension MachineDriver {
    package func pause(instanceUUID: String) async throws {
        try await locks.withLock(instanceUUID) {
            let session = try runningSession(instanceUUID)
            try await translatingErrors(while: "pause instance \(instanceUUID)") { try await session.pause() }
        }
    }

    package func unpause(instanceUUID: String) async throws {
        try await locks.withLock(instanceUUID) {
            let session = try runningSession(instanceUUID)
            try await translatingErrors(while: "unpause instance \(instanceUUID)") { try await session.resume() }
        }
    }

    package func injectNMI(instanceUUID: String) async throws {
        try await locks.withLock(instanceUUID) {
            let session = try runningSession(instanceUUID)
            try await translatingErrors(while: "interrupt instance \(instanceUUID)") { try await session.injectNMI() }
        }
    }

    package func powerOff(instance: Instance, timeout: Duration, retryInterval: Duration) async throws {
        let uuid = try checked(instance.uuid)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "power off instance \(uuid)") {
                guard let machine = try await blocking({ [self] in try directory(uuid).machine() }) else {
                    throw DriverError.instanceNotFound(uuid)
                }
                if let session = session(uuid) {
                    session.setEndAsked(true)
                    do {
                        _ = try await shutDown(session, timeout: timeout, retryInterval: retryInterval)
                    } catch is CancellationError {
                        session.setEndAsked(false)
                        throw CancellationError()
                    }
                    try await session.end()
                }
                await unplug(machine.interfaces, of: uuid)
                // Off is off: a suspended machine does not go on after it.
                try await blocking { [self] in try directory(uuid).removeState() }
            }
        }
    }

    /// Presses the power button every `retryInterval` until the machine is off (true) or `timeout` has passed.
    private func shutDown(_ session: MonitorSession, timeout: Duration, retryInterval: Duration) async throws -> Bool {
        guard timeout > .zero, session.runState == .running else { return session.isGone }
        let clock = ContinuousClock()
        let deadline = clock.now + timeout
        while clock.now < deadline {
            // A guest that is going down already, or a button that failed: what counts is whether it ends.
            do { try await session.pressPowerButton() } catch let error as CancellationError { throw error } catch {
                logger.debug(
                    "power button failed", metadata: ["pid": "\(session.process.identity.pid)", "error": "\(error)"])
            }
            let interval = retryInterval > .zero ? retryInterval : timeout
            let wait = min(interval, clock.now.duration(to: deadline))
            if wait > .zero, try await session.ended.value(within: wait) != nil { return true }
        }
        return session.isGone
    }

    package func powerOn(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        let uuid = try checked(instance.uuid)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "power on instance \(uuid)") {
                guard var machine = try await blocking({ [self] in try directory(uuid).machine() }) else {
                    throw DriverError.instanceNotFound(uuid)
                }
                if let session = session(uuid) {
                    if session.runState == .running || session.runState == .paused { return }
                    try await session.end()
                }
                machine.interfaces = interfaces
                let saved = machine
                try await blocking { [self] in try directory(uuid).save(saved) }
                try await start(machine, isPaused: false)
            }
        }
    }

    package func softReboot(instance: Instance, timeout: Duration) async throws -> Bool {
        let uuid = try checked(instance.uuid)
        return try await locks.withLock(uuid) {
            let session = try runningSession(uuid)
            return try await translatingErrors(while: "reboot instance \(uuid)") {
                guard let machine = try await blocking({ [self] in try directory(uuid).machine() }) else {
                    throw DriverError.instanceNotFound(uuid)
                }
                session.setEndAsked(true)
                do {
                    if try await !shutDown(session, timeout: timeout, retryInterval: .seconds(10)) {
                        session.setEndAsked(false)
                        // It may have gone down in this very moment: then nobody else starts it again.
                        if !session.isGone { return false }
                    }
                } catch {
                    session.setEndAsked(false)
                    throw error
                }
                await unplug(machine.interfaces, of: uuid)
                try await start(machine, isPaused: false)
                return true
            }
        }
    }

    package func destroy(instance: Instance, interfaces: [InterfaceRequest], destroysDisks: Bool) async throws {
        let uuid = try checked(instance.uuid)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "delete instance \(uuid)") {
                if let session = session(uuid) { try await session.end() }
                try await blocking { [self] in try endStray(of: uuid) }
                let saved = try? await blocking { [self] in try directory(uuid).machine() }
                let known = Set(interfaces.map(\.deviceName))
                let forgotten = (saved ?? nil)?.interfaces.filter { !known.contains($0.deviceName) } ?? []
                await unplug(interfaces + forgotten, of: uuid)
                // The kept one first: left alone it would be taken for a machine whose revert was cut.
                if destroysDisks {
                    try await blocking { [self] in
                        try kept(uuid).remove()
                        try directory(uuid).remove()
                    }
                }
            }
        }
    }

    /// A tap that cannot be removed must not keep a machine from going: it is logged.
    func unplug(_ interfaces: [InterfaceRequest], of uuid: String) async {
        for interface in interfaces {
            do { try await blocking { [plugger] in try plugger.unplug(interface) } } catch {
                logger.warning(
                    "could not remove an interface",
                    metadata: ["instance": "\(uuid)", "device": "\(interface.deviceName)", "error": "\(error)"])
            }
        }
    }
}
