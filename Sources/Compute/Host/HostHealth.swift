// What /readyz is asked about: which of the things this service needs it has had an answer from.
package import ServiceMetrics
import Synchronization

package final class HostHealth: Sendable {
    private struct State {
        var conductorAnsweredAt: ContinuousClock.Instant?
        var isDriverReady = false
        var isNodeReported = false
        var placementFailure: String? = "not reported yet"
        var isServing = false
        var isStopping = false
        var waitsFor = "configuration"
    }
    private let state = Mutex(State())
    private let conductorSilence: Duration

    /// - Parameter conductorSilence: how long after its last answer the conductor counts as lost.
    package init(conductorSilence: Duration = .seconds(60)) { self.conductorSilence = conductorSilence }

    package func conductorAnswered() { state.withLock { $0.conductorAnsweredAt = .now } }
    package func driverReady() { state.withLock { $0.isDriverReady = true } }
    package func nodeReported() { state.withLock { $0.isNodeReported = true } }
    package func placementReported() { state.withLock { $0.placementFailure = nil } }
    package func placementFailed(_ reason: String) { state.withLock { $0.placementFailure = reason } }
    package func serving() { state.withLock { $0.isServing = true } }
    package func stopping() { state.withLock { $0.isStopping = true } }
    /// What the start waits for, in words.
    package var waitsFor: String {
        get { state.withLock { $0.waitsFor } }
        set { state.withLock { $0.waitsFor = newValue } }
    }

    package func readiness(isBrokerConnected: Bool) -> HealthReport {
        let state = state.withLock { $0 }
        let silence = state.conductorAnsweredAt.map { $0.duration(to: .now) }
        func check(_ name: String, _ isPassed: Bool, _ reason: @autoclosure () -> String) -> HealthReport.Check {
            HealthReport.Check(name, failure: isPassed ? nil : reason())
        }
        return HealthReport([
            check("driver", state.isDriverReady, "not initialized; the start waits for: \(state.waitsFor)"),
            check("broker", isBrokerConnected, "no connection to RabbitMQ"),
            check(
                "conductor", silence.map { $0 <= conductorSilence } ?? false,
                silence.map { "no answer for \($0.components.seconds) s" } ?? "has not answered yet"),
            check("node", state.isNodeReported, "compute node not reported; the start waits for: \(state.waitsFor)"),
            HealthReport.Check("placement", failure: state.placementFailure),
            check("rpc", state.isServing, "not taking requests yet; the start waits for: \(state.waitsFor)"),
            check("shutdown", !state.isStopping, "shutting down"),
        ])
    }
}
