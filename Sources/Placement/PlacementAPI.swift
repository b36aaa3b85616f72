// The Placement requests a compute service makes (contract §6.1): paths, microversions and retries are the client's affair.
package struct ResourceProvider: Sendable, Equatable {
    package var uuid: String
    package var name: String
    package var generation: Int
    package var parentUUID: String?

    package init(uuid: String, name: String, generation: Int, parentUUID: String? = nil) {
        self.uuid = uuid
        self.name = name
        self.generation = generation
        self.parentUUID = parentUUID
    }
}

package struct Inventory: Sendable, Equatable {
    package var total: Int
    package var reserved: Int
    package var minUnit: Int
    package var maxUnit: Int
    package var stepSize: Int
    package var allocationRatio: Double

    package init(total: Int, reserved: Int, minUnit: Int = 1, maxUnit: Int, stepSize: Int = 1, allocationRatio: Double)
    {
        self.total = total
        self.reserved = reserved
        self.minUnit = minUnit
        self.maxUnit = maxUnit
        self.stepSize = stepSize
        self.allocationRatio = allocationRatio
    }
}

/// What a consumer holds: provider uuid → resource class → amount.
package struct Allocations: Sendable, Equatable {
    package var byProvider: [String: [String: Int]]
    package var projectID: String?
    package var userID: String?
    package var consumerGeneration: Int?

    package init(
        byProvider: [String: [String: Int]], projectID: String? = nil, userID: String? = nil,
        consumerGeneration: Int? = nil
    ) {
        self.byProvider = byProvider
        self.projectID = projectID
        self.userID = userID
        self.consumerGeneration = consumerGeneration
    }
}

/// Every method throws `ServiceFault`.
package protocol PlacementAPI: Sendable {
    /// Providers of the tree that `uuid` is in; empty where there is none.
    func providers(inTreeOf uuid: String) async throws -> [ResourceProvider]
    func createProvider(uuid: String, name: String) async throws -> ResourceProvider
    func inventories(of provider: String) async throws -> (inventories: [String: Inventory], generation: Int)
    /// Replaces all inventories; the answer is the new generation.
    func setInventories(_ inventories: [String: Inventory], of provider: String, generation: Int) async throws -> Int
    func traits(of provider: String) async throws -> (traits: Set<String>, generation: Int)
    /// Replaces all traits, creating those that Placement does not know; the answer is the new generation.
    func setTraits(_ traits: Set<String>, of provider: String, generation: Int) async throws -> Int
    func aggregates(of provider: String) async throws -> (aggregates: Set<String>, generation: Int)
    /// Consumer uuid → resource class → amount.
    func allocations(onProvider provider: String) async throws -> [String: [String: Int]]
    func allocations(ofConsumer consumer: String) async throws -> Allocations
    func setAllocations(_ allocations: Allocations, ofConsumer consumer: String) async throws
    /// Replaces what several consumers hold, all at once: a move from one to another.
    func setAllocations(_ byConsumer: [String: Allocations]) async throws
    /// Drops all a consumer holds; none is no error.
    func deleteAllocations(ofConsumer consumer: String) async throws
    func deleteProvider(_ uuid: String) async throws
}
