// Which path answers what. Apart from the channel, so that it is tested as a function.
import NIOHTTP1

struct OperatorAnswer: Sendable, Equatable {
    var status: HTTPResponseStatus
    var contentType = "text/plain; charset=utf-8"
    var body: String
    var allow: String?
}

struct OperatorResponder: Sendable {
    let metrics: any MetricSource
    let liveness: @Sendable () async -> HealthReport
    let readiness: @Sendable () async -> HealthReport

    func answer(_ method: HTTPMethod, _ target: String) async -> OperatorAnswer {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts.first.map(String.init) ?? ""
        guard ["/healthz", "/readyz", "/metrics"].contains(path) else {
            return OperatorAnswer(status: .notFound, body: "no such page; there are /healthz /readyz /metrics\n")
        }
        guard method == .GET || method == .HEAD else {
            return OperatorAnswer(status: .methodNotAllowed, body: "only GET and HEAD\n", allow: "GET, HEAD")
        }
        if path == "/metrics" {
            return OperatorAnswer(
                status: .ok, contentType: Exposition.contentType, body: Exposition.text(metrics.metricFamilies()))
        }
        let report = path == "/healthz" ? await liveness() : await readiness()
        let isVerbose =
            parts.count > 1 && parts[1].split(separator: "&").contains { $0 == "verbose" || $0.hasPrefix("verbose=") }
        return OperatorAnswer(
            status: report.isHealthy ? .ok : .serviceUnavailable, body: report.text(isVerbose: isVerbose))
    }
}
