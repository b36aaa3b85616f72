// The service's own metrics: what it is, its operations, RPC and the broker connection. One instance is made at start and
// handed to those who count.

package final class ComputeMetrics: MetricSource {
    private let buildInfo: Gauge
    package let operations = Counter(
        "apus_operations_total", help: "Operations finished, by name and outcome.", labels: ["operation", "outcome"])
    package let operationSeconds = Histogram(
        "apus_operation_duration_seconds", help: "Time an operation took, by name and outcome.",
        labels: ["operation", "outcome"])
    package let operationsInFlight = Gauge(
        "apus_operations_in_flight", help: "Operations begun and not finished.", labels: ["operation"])
    package let rpcReceived = Counter(
        "apus_rpc_received_total", help: "RPC messages received, by method.", labels: ["method"])
    package let rpcReplied = Counter(
        "apus_rpc_replied_total", help: "RPC replies sent, by method and result.", labels: ["method", "result"])
    package let rpcDropped = Counter(
        "apus_rpc_dropped_total", help: "RPC messages not carried out, by reason.", labels: ["reason"])
    package let amqpConnected = Gauge(
        "apus_amqp_connected", help: "1 while the connection to the broker is open.", labels: ["connection"])
    package let amqpReconnects = Counter(
        "apus_amqp_reconnects_total", help: "Connections to the broker opened anew.", labels: ["connection"])

    package init(version: String, rpcVersion: String, serviceVersion: Int, host: String) {
        buildInfo = Gauge(
            "apus_build_info", help: "Always 1; the labels say what is running.",
            labels: ["version", "rpc_version", "service_version", "host"])
        buildInfo.set(version, rpcVersion, String(serviceVersion), host, to: 1)
    }

    /// Counts one operation with its duration.
    package func finished(_ operation: String, outcome: String, after duration: Duration) {
        operations.increment(operation, outcome)
        operationSeconds.observe(operation, outcome, value: duration / .seconds(1))
    }

    package func metricFamilies() -> [MetricFamily] {
        let sources: [any MetricSource] = [
            buildInfo, operations, operationSeconds, operationsInFlight, rpcReceived, rpcReplied, rpcDropped,
            amqpConnected, amqpReconnects,
        ]
        return sources.flatMap { $0.metricFamilies() }
    }
}
