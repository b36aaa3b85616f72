// A copy of the root disk at one moment. Where the file system shares blocks the guest stands still for an instant; elsewhere for as
// long as its data is read. What it had not yet written to its disk is not in the copy, as after a power cut.
package import ComputeDriver
import CServiceHost
import DiskImage
import Glibc
import HostSystem
import MonitorProtocol
package import NovaObjects

extension MachineDriver {
    package func withSnapshot(
        of instance: Instance, format: DiskSnapshot.Format, _ body: (DiskSnapshot) async throws -> Void
    ) async throws {
        let uuid = try checked(instance.uuid)
        let (file, byteCount) = try await locks.withLock(uuid) {
            try await translatingErrors(while: "take a snapshot of instance \(uuid)") {
                let file = try await extract(uuid, format)
                return (file, try await blocking { try Files.byteCount(of: file, named: "snapshot of \(uuid)") })
            }
        }
        try await body(DiskSnapshot(descriptor: file.rawValue, byteCount: byteCount, format: format))
        // The descriptor is the copy's only name: it ends here, and with a crash of this service too.
        withExtendedLifetime(file) {}
    }

    /// The copy, open and without a name.
    private func extract(_ uuid: String, _ format: DiskSnapshot.Format) async throws -> Descriptor {
        let directory = directory(uuid)
        guard let machine = try await blocking({ try directory.machine() }), let root = machine.rootDisk else {
            throw DriverError.instanceNotFound(uuid)
        }
        let session = session(uuid).flatMap { $0.isGone || $0.runState != .running ? nil : $0 }
        if let session { try await session.pause() }
        do {
            let (source, clone) = try await blocking {
                let source = try Descriptor(opening: directory.file(root.file), O_RDONLY)
                return (source, try SnapshotFile.clone(source, in: directory))
            }
            if let clone {
                try await resume(session)
                if format == .raw { return clone }
                return try await blockingCancellably { try SnapshotFile.convert(clone, in: directory, isCancelled: $0) }
            }
            let copy = try await blockingCancellably { isCancelled in
                format == .raw
                    ? try SnapshotFile.copy(source, in: directory, isCancelled: isCancelled)
                    : try SnapshotFile.convert(source, in: directory, isCancelled: isCancelled)
            }
            try await resume(session)
            return copy
        } catch {
            // Whatever happened to the copy, the guest goes on; resumed already, it minds no second time.
            try? await resume(session)
            throw error
        }
    }

    private func resume(_ session: MonitorSession?) async throws {
        guard let session, !session.isGone, session.runState == .paused else { return }
        try await uncancelled { try await session.resume() }
    }
}

/// Files without a name in an instance's directory.
enum SnapshotFile {
    private static func make(in directory: InstanceDirectory) throws(HostFailure) -> Descriptor {
        let path = directory.file("disk.snapshot")
        unsafe unlink(path)
        let file = try Descriptor(opening: path, O_RDWR | O_CREAT | O_EXCL)
        unsafe unlink(path)
        return file
    }

    /// Shares the source's blocks; nil where the file system cannot.
    static func clone(_ source: Descriptor, in directory: InstanceDirectory) throws -> Descriptor? {
        let target = try make(in: directory)
        return apus_host_clone(target.rawValue, source.rawValue) == 0 ? target : nil
    }

    static func copy(_ source: Descriptor, in directory: InstanceDirectory, isCancelled: () -> Bool) throws -> Descriptor {
        let target = try make(in: directory)
        try DiskFiles.copy(source, named: "the disk", to: target, named: directory.file("disk.snapshot"), isCancelled: isCancelled)
        return target
    }

    /// A qcow2 image of the raw disk `source`, zeroes left out.
    static func convert(_ source: Descriptor, in directory: InstanceDirectory, isCancelled: () -> Bool) throws -> Descriptor {
        let target = try make(in: directory), name = directory.file("disk.snapshot")
        do throws(ImageError) {
            let disk = try open(source, .raw, isReadOnly: true)
            try QCOW2Creation(byteCount: disk.byteCount).create(on: try DescriptorFile(owning: try second(target), named: name))
            let image = try open(target, .qcow2, isReadOnly: false)
            var position: UInt64 = 0
            while position < disk.byteCount, !isCancelled(), let chunk = dataChunk(source, from: position, of: disk.byteCount) {
                position = chunk.upperBound
                let memory = try disk.read(at: chunk.lowerBound, count: chunk.count)
                if memory.isZero { continue }
                let request = BlockRequest(.write(isDurable: false), offset: chunk.lowerBound, byteCount: UInt64(chunk.count), tag: 0)
                try image.carryOut(request, vectors: memory.vectors)
            }
            try image.carryOut(BlockRequest(.flush, tag: 0))
            try image.close()
        } catch {
            throw HostFailure("write a snapshot to", "\(name) (\(error.reason))", errno: error.errno == 0 ? EIO : error.errno)
        }
        if isCancelled() { throw CancellationError() }
        return target
    }

    /// The next megabyte with data in it; what lies before is a hole.
    private static func dataChunk(_ file: Descriptor, from position: UInt64, of byteCount: UInt64) -> Range<UInt64>? {
        let data = apus_host_next_data(file.rawValue, Int64(position))
        if data < 0, errno == ENXIO { return nil }
        // A file system that knows no holes has data everywhere.
        let begin = max(position, data < 0 ? position : UInt64(data) & ~(MirrorImage.chunkByteCount - 1))
        return begin..<min(byteCount, (begin / MirrorImage.chunkByteCount + 1) * MirrorImage.chunkByteCount)
    }

    private static func open(
        _ file: Descriptor, _ format: DiskImage.ImageFormat, isReadOnly: Bool
    ) throws(ImageError) -> any BlockingImage {
        try format.open(owning: try second(file), named: "the snapshot", isReadOnly: isReadOnly)
    }

    private static func second(_ file: Descriptor) throws(ImageError) -> OwnedDescriptor {
        do { return try file.duplicate(named: "the snapshot") } catch {
            throw ImageError(.host(errno: error.errno), error.operation, subject: error.subject)
        }
    }
}
