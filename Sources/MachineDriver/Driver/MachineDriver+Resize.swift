// Another size for a machine (`ResizeRequest`): the old one is kept beside it until the resize is confirmed or taken back.
package import ComputeDriver
import Glibc
import NovaObjects

extension MachineDriver {
    package func checkResize(_ request: ResizeRequest) async throws {
        let uuid = try checked(request.instance.uuid)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "resize instance \(uuid)") {
                try await blocking { [self] in _ = try resizePlan(request, directory(uuid)) }
            }
        }
    }

    package func beginResize(_ request: ResizeRequest) async throws {
        let uuid = try checked(request.instance.uuid)
        try await changing(uuid) { [self] isCancelled in
            let directory = directory(uuid)
            guard directory.exists else { throw DriverError.instanceNotFound(uuid) }
            try directory.keep(in: kept(uuid), isCancelled: isCancelled)
        }
    }

    package func finishResize(_ request: ResizeRequest) async throws {
        let uuid = try checked(request.instance.uuid)
        try await changing(uuid) { [self] _ in
            let directory = directory(uuid)
            let plan = try resizePlan(request, directory)
            for file in plan.worthless { try Files.removeTree(directory.file(file)) }
            if let byteCount = plan.rootByteCount { try DiskFiles.grow(directory.file(ResizePlan.root), to: byteCount) }
            for disk in plan.emptyDisks {
                let path = directory.file(disk.file)
                if Files.exists(path) {
                    try DiskFiles.grow(path, to: disk.byteCount)
                } else {
                    try disk.make(at: path, options.formatting)
                }
            }
            // The description is the last to change: until then a second attempt finds what the first one found.
            try directory.save(plan.machine)
        }
    }

    package func confirmResize(instanceUUID: String) async throws {
        let uuid = try checked(instanceUUID)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "confirm the resize of instance \(uuid)") {
                try await blocking { [self] in try kept(uuid).remove() }
            }
        }
    }

    package func revertResize(instanceUUID: String) async throws {
        let uuid = try checked(instanceUUID)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "revert the resize of instance \(uuid)") {
                guard try await blocking({ [self] in kept(uuid).exists }) else { return }
                if let session = session(uuid) { try await session.end() }
                if let machine = try await blocking({ [self] in try directory(uuid).machine() }) {
                    await unplug(machine.interfaces, of: uuid)
                }
                try await blocking { [self] in
                    try endStray(of: uuid)
                    try directory(uuid).putBack(kept(uuid))
                }
            }
        }
    }

    /// Where a machine is kept as it was.
    func kept(_ uuid: String) -> InstanceDirectory {
        InstanceDirectory(keptOf: uuid, instancesPath: options.instancesPath)
    }

    /// Changes the files of a machine that is off.
    private func changing(_ uuid: String, _ body: @escaping @Sendable (_ isCancelled: () -> Bool) throws -> Void) async throws {
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "resize instance \(uuid)") {
                guard session(uuid).map(\.isGone) ?? true else {
                    throw DriverError(
                        novaClass: "InstanceInvalidState", tenantMessage: "Instance \(uuid) runs; it must be off for a resize.",
                        fault: .caller)
                }
                try await blockingCancellably { [self] isCancelled in
                    try endStray(of: uuid)
                    try body(isCancelled)
                }
            }
        }
    }

    private func resizePlan(_ request: ResizeRequest, _ directory: InstanceDirectory) throws -> ResizePlan {
        guard let machine = try directory.machine() else { throw DriverError.instanceNotFound(request.instance.uuid) }
        var byteCounts: [String: Int64] = [:]
        for disk in machine.disks where !disk.isReadOnly {
            let path = directory.file(disk.file)
            // A swap disk may be missing where an earlier attempt was cut: it is made again.
            guard Files.exists(path) else { continue }
            byteCounts[disk.file] = try Files.byteCount(of: try Descriptor(opening: path, O_RDONLY), named: path)
        }
        return try ResizePlan(machine, request, byteCounts: byteCounts, options: options)
    }
}
