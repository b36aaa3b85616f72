// build_and_run_instance (RPC reference §5.1). Two domains of failure, one inside the other: the claim of the host's resources,
// and around it the network, the allocations and the row. What undoes things runs to its end also where the build is cancelled.
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import ServiceConfiguration

/// One build on its way.
struct Build: Sendable {
    let request: BuildRequest
    let operation: Operation
    let interruption: Interruption

    var context: RequestContext { operation.context }
    var isDeleting: Bool { interruption.isDeleting }
}

extension ComputeManager {
    func buildAndRun(_ instance: inout Instance, _ build: Build) async throws {
        var failure: BuildFailure?
        do {
            try await buildLimit.withSlotKeeping(&instance) { instance in
                do { try await self.begin(&instance, build) } catch {
                    // Somebody else has taken the instance over, or it is gone.
                    throw NovaException.isClass("UnexpectedTaskStateError", error) ? BuildFailure.disappeared : error
                }
                try await self.attempt(&instance, build)
            }
        } catch {
            failure = BuildFailure(error, isDeleting: build.isDeleting)
        }
        guard let failure else { return await services.books.buildFinished(successfully: true) }
        let (left, outcome) = await shielded { [instance] in
            var instance = instance
            let outcome = await self.finish(failure, &instance, build)
            return (instance, outcome)
        }
        instance = left
        if let outcome { throw HandledFailure(exception: outcome) }
    }

    private func begin(_ instance: inout Instance, _ build: Build) async throws {
        instance.vmState = "building"
        instance.taskState = nil
        try await services.conductor.save(&instance, expecting: ["scheduling", nil], context: build.context)
    }

    /// The build itself. Throws a `BuildFailure`, with the claim undone.
    private func attempt(_ instance: inout Instance, _ build: Build) async throws {
        let files = try decoded(injectedFiles: build.request.injectedFiles)
        let imageName: [String: JSONValue] = ["image_name": build.request.image["name"] ?? ""]
        await notify(instance, "create", .start, build.context, extra: imageName)
        if let roles = build.context.entries["roles"]?.arrayValue {
            instance.systemMetadata["boot_roles"] = roles.compactMap(\.stringValue).joined(separator: ",")
        }
        var isClaimed = false
        do {
            try refuseUnsupported(instance, build)
            do { try await services.books.claim(&instance, limits: build.request.limits, context: build.context) } catch {
                throw BuildFailure(error, isDeleting: build.isDeleting)
            }
            isClaimed = true
            let networkInfo = try await spawn(&instance, build, files)
            do { try await complete(&instance, build, networkInfo) } catch {
                await removeMachine(of: instance, networkInfo, build.operation)
                throw error
            }
        } catch {
            let failure = BuildFailure(error, isDeleting: build.isDeleting)
            let books = services.books
            instance = await shielded { [instance, isClaimed] in
                var instance = instance
                if isClaimed { await books.abortClaim(&instance, context: build.context) }
                await self.notify(instance, "create", .error, build.context, fault: failure.exception)
                return instance
            }
            throw failure
        }
    }

    /// What this service cannot give, said before anything is made.
    private func refuseUnsupported(_ instance: Instance, _ build: Build) throws {
        let request = build.request
        let reason: String? =
            if request.blockDeviceMappings.contains(where: \.isVolume) {
                "this compute host cannot attach volumes; boot the server from an image instead"
            } else if !request.acceleratorUUIDs.isEmpty {
                "this compute host has no accelerators; choose a flavor without a device profile"
            } else if request.blockDeviceMappings.contains(where: { $0.string("tag") != nil })
                || (try? request.requestedNetworks?.elements().contains { $0.tag != nil }) == true {
                "this compute host does not support device tags; leave the tags out"
            } else if let certificates = instance.object["trusted_certs"], !certificates.isNull {
                "this compute host cannot check image certificates; leave trusted_image_certificates out"
            } else if request.image["id"]?.stringValue == nil, instance.imageRef?.isEmpty != false {
                "the request names no image"
            } else {
                nil
            }
        if let reason { throw BuildFailure.abort(.buildAbort(instance.uuid, reason)) }
    }

    /// Pairs of a path and its content in base64.
    func decoded(injectedFiles: [JSONValue]) throws -> [(path: String, content: [UInt8])] {
        try injectedFiles.map { file in
            let parts = file.arrayValue ?? []
            let path = parts.first?.stringValue ?? "?"
            guard parts.count == 2, let text = parts[1].stringValue, let content = Base64.decode(text) else {
                throw NovaException.base64(path)
            }
            return (path, content)
        }
    }

    /// Steps 18 to 20: the server is there.
    private func complete(_ instance: inout Instance, _ build: Build, _ networkInfo: NetworkInfo) async throws {
        let context = build.context
        if instance.systemMetadata["network_allocated"] != nil { instance.systemMetadata["network_allocated"] = nil }
        setAccessAddresses(&instance, networkInfo)
        instance.powerState = try await powerState(of: instance).rawValue
        instance.vmState = "active"
        instance.taskState = nil
        instance.launchedAt = .now
        if needsConfigDrive(instance, image: build.request.image), !instance.hasConfigDrive {
            instance.set("config_drive", to: "True")
        }
        try await services.conductor.save(&instance, expecting: ["spawning"], context: context)
        await services.books.tellSchedulers(updated: instance, context: context)
        await notify(
            instance, "create", .end, context, networkInfo: networkInfo, extra: ["message": "Success"])
    }

    private func setAccessAddresses(_ instance: inout Instance, _ networkInfo: NetworkInfo) {
        guard let name = services.configuration.compute.defaultAccessIPNetworkName,
            instance.object["access_ip_v4"]?.stringValue == nil, instance.object["access_ip_v6"]?.stringValue == nil
        else { return }
        for address in networkInfo.filter({ $0.label == name }).flatMap(\.fixedIPs) {
            let field = address["version"]?.intValue == 6 ? "access_ip_v6" : "access_ip_v4"
            if instance.object[field]?.stringValue == nil, let text = address["address"]?.stringValue {
                instance.set(field, to: text)
            }
        }
    }

    func needsConfigDrive(_ instance: Instance, image: JSONValue) -> Bool {
        instance.hasConfigDrive || services.configuration.compute.isConfigDriveForced
            || ImageProperties(image: image).string("img_config_drive") == "mandatory"
    }
}

extension BuildFailure {
    var exception: NovaException? {
        switch self {
        case .disappeared: nil
        case .reschedule(let exception, _), .abort(let exception): exception
        }
    }
}

extension ConcurrencyLimit {
    /// `withSlot` for a body that changes an instance; what it changed is kept where it throws.
    func withSlotKeeping(
        _ instance: inout Instance, _ body: (inout Instance) async throws -> Void
    ) async throws {
        var changed = instance
        defer { instance = changed }
        try await withSlot { try await body(&changed) }
    }
}
