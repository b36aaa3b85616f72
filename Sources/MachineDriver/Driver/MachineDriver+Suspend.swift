// Suspend: the whole machine in a file of its directory, "state", and no process. Resume: a new process goes on from that file, whose
// pages it reads as the guest touches them; the file's name goes at once, the file itself with the process.
package import ComputeDriver
import Glibc
import MonitorProtocol
package import NovaObjects

extension MachineDriver {
    package func suspend(instance: Instance) async throws {
        let uuid = try checked(instance.uuid)
        try await locks.withLock(uuid) {
            let session = try runningSession(uuid)
            try await translatingErrors(while: "suspend instance \(uuid)") {
                let directory = directory(uuid)
                guard let machine = try await blocking({ try directory.machine() }) else { throw DriverError.instanceNotFound(uuid) }
                let wasRunning = session.runState == .running
                if wasRunning { try await session.pause() }
                do {
                    let timeout = options.saveTimeout
                    try await blockingCancellably { isCancelled in
                        try directory.replaceState { file in
                            try StateTransfer.save(session.socketPath, to: file, timeout: timeout, isCancelled: isCancelled)
                        }
                    }
                } catch {
                    // The guest goes on; nothing was lost.
                    if wasRunning { _ = try? await uncancelled { try await session.resume() } }
                    throw error
                }
                try await session.end()
                await unplug(machine.interfaces, of: uuid)
            }
        }
    }

    package func resume(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        let uuid = try checked(instance.uuid)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "resume instance \(uuid)") {
                let directory = directory(uuid)
                guard var machine = try await blocking({ try directory.machine() }) else {
                    throw DriverError.instanceNotFound(uuid)
                }
                if let session = session(uuid), !session.isGone { return }
                guard let state = try await blocking({ try directory.openState() }) else {
                    throw DriverError(
                        novaClass: "InstanceNotRunning", tenantMessage: "Instance \(uuid) is not suspended: there is no saved state of it.",
                        fault: .caller)
                }
                machine.interfaces = interfaces
                let saved = machine
                try await blocking { try directory.save(saved) }
                try await start(machine, isPaused: false, restoring: state)
                // What it was must not come back after it has gone on.
                try await blocking { try directory.removeState() }
            }
        }
    }
}

extension InstanceDirectory {
    private var stateFile: String { file("state") }

    /// It is suspended.
    var hasState: Bool { Files.exists(stateFile) }

    /// Nil: it is not suspended.
    func openState() throws(HostFailure) -> Descriptor? {
        do { return try Descriptor(opening: stateFile, O_RDONLY) } catch {
            if error.errno == ENOENT { return nil }
            throw error
        }
    }

    /// Complete or not there: it gets its name when `write` is done and its bytes are on the disk.
    func replaceState(_ write: (Descriptor) throws -> Void) throws {
        let part = stateFile + ".new"
        unsafe unlink(part)
        do {
            let file = try Descriptor(opening: part, O_RDWR | O_CREAT | O_EXCL)
            try write(file)
            guard fsync(file.rawValue) == 0 else { throw HostFailure("write", part) }
            try Files.rename(part, to: stateFile)
        } catch {
            unsafe unlink(part)
            throw error
        }
    }

    func removeState() throws(HostFailure) { try Files.removeTree(stateFile) }
}
