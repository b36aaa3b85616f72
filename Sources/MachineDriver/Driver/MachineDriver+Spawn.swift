// Making a machine: images, directory, disks, config drive, then its start.
package import ComputeDriver
import DiskImage
import Glibc

extension MachineDriver {
    package func spawn(_ request: SpawnRequest) async throws {
        let plan = try MachinePlan(request, options: options)
        // Refused before anything is made, not after a download.
        for interface in request.interfaces { _ = try PlugPlan(interface) }
        let uuid = plan.machine.uuid
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "create instance \(uuid)") {
                guard session(uuid) == nil else {
                    throw DriverError(
                        novaClass: "InstanceExists", tenantMessage: "Instance \(uuid) already exists on this host.",
                        fault: .caller)
                }
                try await make(plan, fetch: request.fetchImage)
                do {
                    try await start(plan.machine, isPaused: request.startsPaused)
                } catch {
                    _ = try? await uncancelled { [self] in try await blocking { [self] in try directory(uuid).remove() }
                    }
                    throw error
                }
            }
        }
    }

    /// What a plan boots from, open: the descriptors keep the data, whatever happens to the cache meanwhile.
    struct BootImages: Sendable {
        var image: Descriptor
        var kernel: Descriptor?
        var ramdisk: Descriptor?
    }

    func bootImages(of plan: MachinePlan, fetch: @Sendable (String, CInt) async throws -> Int64) async throws -> BootImages {
        let (imageID, flavor) = (plan.imageID, plan.rootByteCount)
        let image: Descriptor
        if let format = plan.imageFormat {
            image = try await cache.open(imageID, fetch: fetch) { _ in
            } conversion: { file, path, isCancelled in
                let source = try ImageConversion.open(file, format: format, imageID: imageID)
                // Before gigabytes are written for nothing.
                _ = try MachinePlan.rootByteCount(image: Int64(clamping: source.byteCount), flavor: flavor)
                try ImageConversion.convert(source, imageID: imageID, to: path, isCancelled: isCancelled)
            }
        } else {
            image = try await cache.open(imageID, fetch: fetch) { try Self.checkRaw($0, imageID: imageID) }
        }
        var images = BootImages(image: image)
        if let kernelID = plan.kernelID { images.kernel = try await cache.open(kernelID, fetch: fetch) { _ in } }
        if let ramdiskID = plan.ramdiskID { images.ramdisk = try await cache.open(ramdiskID, fetch: fetch) { _ in } }
        try Task.checkCancellation()
        return images
    }

    /// The instance's directory, complete or not there.
    private func make(_ plan: MachinePlan, fetch: @Sendable (String, CInt) async throws -> Int64) async throws {
        let images = try await bootImages(of: plan, fetch: fetch)
        try await blockingCancellably { [self] isCancelled in
            let directory = directory(plan.machine.uuid)
            // What an earlier build left.
            try endStray(of: plan.machine.uuid)
            try directory.remove()
            let draft = try directory.prepare()
            do {
                try fill(draft, plan, images, isCancelled: isCancelled)
                for disk in plan.emptyDisks { try disk.make(at: draft.file(disk.file), options.formatting) }
                try draft.save(plan.machine)
                if isCancelled() { throw CancellationError() }
                try directory.publish(draft)
            } catch {
                InstanceDirectory.discard(draft)
                throw error
            }
        }
    }

    /// The files a machine boots from: root disk, kernel, RAM disk, UEFI variables, config drive.
    /// - Parameter suffix: after each file's name.
    func fill(
        _ directory: InstanceDirectory, _ plan: MachinePlan, _ images: BootImages, suffix: String = "", isCancelled: () -> Bool
    ) throws {
        let size = try Files.byteCount(of: images.image, named: "image \(plan.imageID)")
        let byteCount = try MachinePlan.rootByteCount(image: size, flavor: plan.rootByteCount)
        try DiskFiles.copy(
            images.image, named: "image \(plan.imageID)", to: directory.file("disk" + suffix), byteCount: byteCount,
            isCancelled: isCancelled)
        if let kernel = images.kernel, let id = plan.kernelID {
            try copy(id, kernel, to: directory.kernel(suffix), isCancelled: isCancelled)
        }
        if plan.machine.firmware == .uefi {
            // Each guest has variables of its own; what the distribution ships is what they begin with.
            let path = options.firmwareVariablesPath
            let template: Descriptor
            do { template = try Descriptor(opening: path, O_RDONLY) } catch {
                throw HostFailure("open", path, errno: error.errno, remedy: "install the distribution's ovmf")
            }
            try DiskFiles.copy(template, named: path, to: directory.variables(suffix), byteCount: 0, isCancelled: isCancelled)
        }
        if let ramdisk = images.ramdisk, let id = plan.ramdiskID {
            try copy(id, ramdisk, to: directory.ramdisk(suffix), isCancelled: isCancelled)
        }
        if let content = plan.configDrive {
            let path = directory.file("disk.config" + suffix), isFAT = options.isConfigDriveFAT
            let build = isFAT ? FATImage.build : ISO9660Image.build
            try Files.write(path, try build(content, "config-2", time(nil)))
            if isFAT { try DiskFiles.grow(path, to: Int64(FATImage.byteCount)) }
        }
    }

    /// A second name for the cache's file, where that is still the one that was opened.
    private func copy(_ imageID: String, _ file: Descriptor, to path: String, isCancelled: () -> Bool) throws {
        if unsafe link(cache.path(of: imageID), path) == 0 { return }
        try DiskFiles.copy(file, named: "image \(imageID)", to: path, byteCount: 0, isCancelled: isCancelled)
    }

    /// The content must be what its record says: see ImageFormat.
    private static func checkRaw(_ file: Descriptor, imageID: String) throws {
        var head = [UInt8](repeating: 0, count: ImageFormat.headByteCount)
        // SAFETY: the buffer is ours and as long as said.
        let count = unsafe pread(file.rawValue, &head, head.count, 0)
        guard count >= 0 else { throw HostFailure("read", "image \(imageID)") }
        let format = ImageFormat.detect(Array(head.prefix(count)))
        guard format == .raw else {
            throw DriverError(
                novaClass: "ImageUnacceptable",
                tenantMessage:
                    "Image \(imageID) is unacceptable: its content is \(format.rawValue), its disk format says raw.",
                fault: .caller)
        }
    }
}
