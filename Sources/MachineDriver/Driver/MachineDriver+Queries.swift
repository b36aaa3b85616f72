// What is on this host, and what machines do.
package import ComputeDriver
import Glibc
import MonitorProtocol

extension MachineDriver {
    package func hostResources() async throws -> HostResources {
        try await translatingErrors(while: "read the resources of this host") { [options] in
            try await blocking { try HostFacts.resources(of: options) }
        }
    }

    package func hostUptime() async throws -> String {
        try await translatingErrors(while: "read the uptime of this host") {
            try await blocking { try HostFacts.uptimeLine() }
        }
    }

    package func machines() async throws -> [MachineSummary] {
        try await translatingErrors(while: "list the machines of this host") {
            try await blocking { [self] in
                try instanceUUIDs().compactMap { uuid in
                    try knownPowerState(of: uuid).map { MachineSummary(instanceUUID: uuid, powerState: $0) }
                }
            }
        }
    }

    /// Directories that bear a uuid and are complete.
    func instanceUUIDs() throws -> [String] {
        try Files.names(in: options.instancesPath).filter { name in
            (try? checked(name)) != nil && directory(name).exists
        }
    }

    package func powerState(of instanceUUID: String) async throws -> PowerState {
        let uuid = try checked(instanceUUID)
        let state = try await translatingErrors(while: "read the state of instance \(uuid)") {
            try await blocking { [self] in try knownPowerState(of: uuid) }
        }
        guard let state else { throw DriverError.instanceNotFound(uuid) }
        return state
    }

    /// Nil: there is no such machine. Blocking.
    private func knownPowerState(of uuid: String) throws -> PowerState? {
        if let session = session(uuid) {
            switch session.runState {
            case .running: return .running
            case .paused, .configured: return .paused
            case .shutdown: return .shutdown
            case .internalError: return .crashed
            case .ended: break
            }
        }
        let directory = directory(uuid)
        guard directory.exists else { return nil }
        if directory.hasState { return .suspended }
        return try directory.run()?.end == .crashed ? .crashed : .shutdown
    }

    package func cleanImageCache(minimumAge: Duration) async throws -> Int {
        try await translatingErrors(while: "clean the image cache") {
            let used = try await blocking { [self] in
                Set(try instanceUUIDs().flatMap { (try? directory($0).machine())??.imageIDs ?? [] })
            }
            return try await cache.removeUnused(except: used, olderThan: Int(clamping: minimumAge.components.seconds))
        }
    }

    package func consoleOutput(instanceUUID: String, byteCount: Int) async throws -> [UInt8] {
        let directory = directory(try checked(instanceUUID))
        let limit = options.consoleLimitBytes
        return try await translatingErrors(while: "read the console of instance \(instanceUUID)") {
            try await blocking {
                guard directory.exists else { throw DriverError.instanceNotFound(instanceUUID) }
                return try directory.tail(of: directory.consoleLog, byteCount: min(byteCount, limit))
            }
        }
    }
}
