// What a machine is doing, by the names that QMP gives these states where it has them. The moves between them are Machine's.

/// A machine's state. `Machine` documents which request leads from which to which.
package enum RunState: String, Sendable, CaseIterable {
    /// Made, no vCPU has run yet. To running, paused, ended.
    case configured
    /// To paused, shutdown, internalError, ended; a reset leads back here.
    case running
    /// vCPUs and devices stand still. To running, ended; to shutdown and internalError by what the guest did just before.
    case paused
    /// The guest switched itself off. To paused by a reset, to ended.
    case shutdown
    /// Guest code cannot go on; it stays as it is, for inspection. To paused by a reset, to ended.
    case internalError = "internal-error"
    /// Nothing is left to run.
    case ended

    /// Whether vCPUs execute guest code.
    package var executes: Bool { self == .running }
}
