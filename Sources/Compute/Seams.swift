// The lines along which Compute is cut: what operations on instances ask of the host's books, of the network, of the
// notifications and of the config drive's content. One implementation of each, in the folder that bears its name.
package import ComputeDriver
package import JSON
package import NovaObjects
package import OsloMessaging

/// The host's books: what instances use of it, told to the conductor, to Placement and to the schedulers (Host/).
package protocol HostBooks: Sendable {
    /// hypervisor_hostname of the one node.
    var nodeName: String { get }
    /// The instance claim (RPC reference §5.1 step 8): refuses with ComputeResourcesUnavailable, else sets and saves
    /// host, node and launched_on, counts the usage and updates the node.
    func claim(_ instance: inout Instance, limits: JSONValue, context: RequestContext) async throws
    /// Undoes a claim: usage, `save{host=null,node=null}`, node update.
    func abortClaim(_ instance: inout Instance, context: RequestContext) async
    /// Counts an instance anew after its state changed (stopped, deleted, …) and updates the node where something
    /// differs.
    func updateUsage(_ instance: Instance, context: RequestContext) async
    /// Allocations of the instance in Placement: read for the driver, dropped after a failed build or a delete.
    func deleteAllocations(of instanceUUID: String) async throws
    /// The move claim of a resize on this host (RPC reference §5.8.1): saves the migration with its destination and the instance
    /// with its migration context, and counts the new size beside the old one.
    func claimResize(
        _ instance: inout Instance, _ migration: inout Migration, to flavor: Flavor, context: RequestContext) async throws
    /// Saves the migration's end, counts one size again and drops the migration context; reverted: takes its old side.
    func endResize(
        _ instance: inout Instance, _ migration: inout Migration, as end: ResizeEnd, context: RequestContext) async throws
    /// What the conductor put aside under the migration's uuid becomes the instance's again. None is no error.
    func revertAllocations(of migration: Migration, to instanceUUID: String) async throws
    /// What the migration still holds is free. None is no error.
    func dropAllocations(of migration: Migration) async throws
    /// COMPUTE_STATUS_DISABLED on the node's provider.
    func setEnabled(_ isEnabled: Bool, context: RequestContext) async throws
    /// Failed builds in a row, for the scheduler's weigher.
    func buildFinished(successfully: Bool) async
    /// Fan-outs to the schedulers (contract §4.4).
    func tellSchedulers(updated instance: Instance, context: RequestContext) async
    func tellSchedulers(deleted instanceUUID: String, context: RequestContext) async
}

/// Ports of an instance (Network/).
package protocol InstanceNetwork: Sendable {
    /// allocate_for_instance (RPC reference §5.1.1).
    func allocate(
        for instance: Instance, requested: NetworkRequestList?, securityGroups: [String], context: RequestContext
    ) async throws -> NetworkInfo
    /// Unbinds ports that were there before, deletes the others (contract §7.7). A port that is gone is no error.
    func deallocate(for instance: Instance, requested: NetworkRequestList?, context: RequestContext) async throws
    /// Asks Neutron for the whole picture and stores it in the info cache (contract §7.5).
    /// - Parameter portID: refresh this one VIF only.
    @discardableResult
    func refresh(_ instance: Instance, portID: String?, context: RequestContext) async throws -> NetworkInfo
    /// Refreshes from the ports Neutron has now instead of those in the cache: the periodic repair.
    @discardableResult
    func heal(_ instance: Instance, context: RequestContext) async throws -> NetworkInfo
    /// Moves the ports' active bindings to `host` where it has a binding of its own (`migrate_instance_start`).
    func activateBindings(of instance: Instance, on host: String, context: RequestContext) async throws
    /// Binds the ports to `host` that are not (`migrate_instance_finish`).
    func bindPorts(of instance: Instance, to host: String, context: RequestContext) async throws
    /// Takes the mark of a move off the ports (`setup_networks_on_host` with `teardown`).
    func clearMoveMarks(of instance: Instance, context: RequestContext) async throws
    /// What the info cache holds.
    func cached(_ instance: Instance) -> NetworkInfo
    /// Binds ports that are bound elsewhere, or nowhere, to this host.
    func bind(_ instance: Instance, context: RequestContext) async throws
    /// Removes one VIF from the info cache, after network-vif-deleted.
    func forget(portID: String, of instance: Instance, context: RequestContext) async throws -> VIF?
}

extension InstanceNetwork {
    @discardableResult
    package func heal(_ instance: Instance, context: RequestContext) async throws -> NetworkInfo {
        try await refresh(instance, portID: nil, context: context)
    }
}

/// Phases of an operation in its notifications.
package enum NotificationPhase: String, Sendable { case start, end, error }

/// Notifications about instances, legacy and versioned as configured; never an error of the operation (Notifications/).
package protocol InstanceNotifications: Sendable {
    /// `action`: versioned name ("create", "power_off", "delete", …); the legacy event name is derived from it.
    func instance(
        _ instance: Instance, action: String, phase: NotificationPhase?, networkInfo: NetworkInfo?,
        extra: [String: JSONValue], fault: NovaException?, context: RequestContext
    ) async
    /// Wrapper E: legacy event named after the method and versioned compute.exception.
    func exception(
        _ error: NovaException, method: String, arguments: [String: JSONValue], context: RequestContext
    ) async
}

/// Content of the config drive and, later, of the metadata API (Metadata/).
package protocol InstanceMetadata: Sendable {
    /// Path → bytes, "openstack/latest/meta_data.json" and the others, with injected files and admin password.
    func configDrive(
        for instance: Instance, networkInfo: NetworkInfo, injectedFiles: [(path: String, content: [UInt8])],
        adminPassword: String?, context: RequestContext
    ) async throws -> [String: [UInt8]]
}

/// What the host's own work (start, periodic passes, news of machines) asks of the operations on instances (Instance/).
/// Nothing is thrown: an instance that cannot be mended is marked and logged, and the next one has its turn.
package protocol InstanceStartup: Sendable {
    /// Repair after a restart (`_init_instance`, contract §5.3). Called one instance at a time, before any request is
    /// taken.
    func initInstance(_ instance: Instance, context: RequestContext) async
    /// The machine of `instance` is in `powerState`, which the driver was just asked for: saves it and brings machine
    /// and record together (contract §5.7). Called by the periodic pass and for lifecycle events, in any order with
    /// requests; skips an instance that has a task or another host.
    func powerStateChanged(_ instance: Instance, to powerState: PowerState, context: RequestContext) async
    /// Ends the machine of an instance whose record is deleted, with its interfaces and disks
    /// (`_cleanup_running_deleted_instances`).
    func reap(_ instance: Instance, context: RequestContext) async
    /// Queues what a periodic task found due.
    func request(_ work: DueWork, for instance: Instance, context: RequestContext) async
}

/// What periodic tasks ask for where nobody else does.
package enum DueWork: Sendable, Equatable {
    /// A soft-deleted server that was kept long enough.
    case delete
    /// A shelved server that was on its host long enough.
    case offload
}
