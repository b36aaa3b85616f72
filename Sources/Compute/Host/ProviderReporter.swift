// The root resource provider of this host in Placement: made once, read anew every
// `resource_provider_association_refresh`, written where it differs. Its generation changes under us whenever the
// scheduler allocates, so a conflict is normal: what is cached is dropped and the comparison made again.
package import Logging
import OpenStackHTTP
package import Placement

/// What a provider should have.
package struct ProviderOffer: Sendable {
    package var inventories: @Sendable (_ existing: [String: Inventory]) -> [String: Inventory]
    package var traits: @Sendable (_ existing: Set<String>) -> Set<String>

    package init(
        inventories: @escaping @Sendable ([String: Inventory]) -> [String: Inventory],
        traits: @escaping @Sendable (Set<String>) -> Set<String>
    ) {
        self.inventories = inventories
        self.traits = traits
    }
}

package actor ProviderReporter {
    private struct Cached {
        var provider: ResourceProvider
        var inventories: [String: Inventory]
        var traits: Set<String>
        var readAt: ContinuousClock.Instant
    }
    private static let attemptLimit = 4

    private let placement: any PlacementAPI
    private let refreshInterval: Duration
    private let logger: Logger
    private var cached: Cached?
    /// CPU traits that this Placement does not know are left out after it refused them once.
    private var refusesCPUTraits = false

    /// - Parameter refreshInterval: `[compute] resource_provider_association_refresh`; zero: never read anew.
    package init(placement: any PlacementAPI, refreshInterval: Duration, logger: Logger) {
        self.placement = placement
        self.refreshInterval = refreshInterval
        self.logger = logger
    }

    /// Brings the provider in line with `offer`. Callers take turns (`TurnQueue`); a conflict with others is met by
    /// reading again.
    package func report(uuid: String, name: String, offer: ProviderOffer) async throws {
        for attempt in 1... {
            do {
                var provider = try await current(uuid: uuid, name: name)
                try await writeInventories(offer.inventories(provider.inventories), of: &provider)
                try await writeTraits(offer.traits(provider.traits), of: &provider)
                cached = provider
                return
            } catch {
                cached = nil
                guard let fault = error as? ServiceFault, Self.isWorthAnother(fault), attempt < Self.attemptLimit else {
                    throw error
                }
                logger.debug(
                    "provider changed meanwhile, comparing again",
                    metadata: ["provider": "\(uuid)", "attempt": "\(attempt)", "answer": "\(fault.body)"])
            }
        }
    }

    /// Sets or removes one trait at once, for an operator's command.
    package func setTrait(_ trait: String, isSet: Bool, of uuid: String) async throws {
        for attempt in 1... {
            do {
                let (traits, generation) = try await placement.traits(of: uuid)
                let wanted = isSet ? traits.union([trait]) : traits.subtracting([trait])
                guard wanted != traits else { return }
                let next = try await placement.setTraits(wanted, of: uuid, generation: generation)
                cached?.traits = wanted
                cached?.provider.generation = next
                return
            } catch let fault as ServiceFault where fault.status == 409 && attempt < Self.attemptLimit {
                cached = nil
            }
        }
    }

    /// Removes a provider with all that is allocated on it: that of a node this host no longer has.
    package func remove(uuid: String) async throws {
        if cached?.provider.uuid == uuid { cached = nil }
        do {
            for consumer in try await placement.allocations(onProvider: uuid).keys {
                try await placement.deleteAllocations(ofConsumer: consumer)
            }
            try await placement.deleteProvider(uuid)
        } catch let fault as ServiceFault where fault.status == 404 {
            return
        }
    }

    /// The next report reads everything from Placement.
    package func forget() { cached = nil }

    private func current(uuid: String, name: String) async throws -> Cached {
        if let cached, cached.provider.uuid == uuid,
            refreshInterval == .zero || ContinuousClock.now < cached.readAt + refreshInterval
        {
            return cached
        }
        let now = ContinuousClock.now
        let tree = try await placement.providers(inTreeOf: uuid)
        guard let known = tree.first(where: { $0.uuid == uuid }) else {
            let provider = try await placement.createProvider(uuid: uuid, name: name)
            logger.info("resource provider created", metadata: ["provider": "\(uuid)", "name": "\(name)"])
            // One that somebody else made this moment may have content already.
            guard provider.generation > 0 else {
                return Cached(provider: provider, inventories: [:], traits: [], readAt: now)
            }
            return try await read(provider, at: now)
        }
        return try await read(known, at: now)
    }

    private func read(_ known: ResourceProvider, at now: ContinuousClock.Instant) async throws -> Cached {
        var provider = known
        let (inventories, _) = try await placement.inventories(of: provider.uuid)
        let (traits, generation) = try await placement.traits(of: provider.uuid)
        provider.generation = generation
        return Cached(provider: provider, inventories: inventories, traits: traits, readAt: now)
    }

    private func writeInventories(_ wanted: [String: Inventory], of cached: inout Cached) async throws {
        guard wanted != cached.inventories else { return }
        do {
            cached.provider.generation = try await placement.setInventories(
                wanted, of: cached.provider.uuid, generation: cached.provider.generation)
            cached.inventories = wanted
        } catch let fault as ServiceFault where fault.code == "placement.inventory.inuse" {
            // Something that guests hold would go. The traits are true nevertheless; the next pass tries again.
            logger.error(
                "inventory not changed: part of it is in use",
                metadata: ["provider": "\(cached.provider.uuid)", "answer": "\(fault.body)"])
        }
    }

    private func writeTraits(_ wanted: Set<String>, of cached: inout Cached) async throws {
        let wanted = refusesCPUTraits ? Self.withoutCPUTraits(wanted) : wanted
        guard wanted != cached.traits else { return }
        do {
            try await setTraits(wanted, of: &cached)
        } catch let fault as ServiceFault where fault.status == 400 && !refusesCPUTraits {
            logger.warning(
                "Placement refused a trait, reporting none of the CPU's features",
                metadata: ["provider": "\(cached.provider.uuid)", "answer": "\(fault.body)"])
            refusesCPUTraits = true
            try await setTraits(Self.withoutCPUTraits(wanted), of: &cached)
        }
    }

    private func setTraits(_ traits: Set<String>, of cached: inout Cached) async throws {
        cached.provider.generation = try await placement.setTraits(
            traits, of: cached.provider.uuid, generation: cached.provider.generation)
        cached.traits = traits
    }

    private static func withoutCPUTraits(_ traits: Set<String>) -> Set<String> {
        traits.filter { !$0.hasPrefix("HW_CPU_X86_") }
    }

    /// Another writer was faster, or the provider is gone and will be made again. A name that another provider has is
    /// neither.
    private static func isWorthAnother(_ fault: ServiceFault) -> Bool {
        (fault.status == 409 && !fault.body.contains("Conflicting resource provider name:")) || fault.status == 404
    }
}
