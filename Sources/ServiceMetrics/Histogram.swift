// Distributions by label values, with fixed upper bounds; bounded in series like a counter.
import Synchronization

package final class Histogram: MetricSource {
    private struct Series {
        var counts: [UInt64]
        var count: UInt64 = 0
        var sum = 0.0
    }

    /// From a request to a neighbour (5 ms) to a build with a large image (10 minutes).
    package static let secondsBounds = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]

    private let name: String
    private let help: String
    private let labelNames: [String]
    private let bounds: [Double]
    private let series = Mutex<[[String]: Series]>([:])

    package init(_ name: String, help: String, labels: [String] = [], bounds: [Double] = secondsBounds) {
        self.name = name
        self.help = help
        labelNames = labels
        self.bounds = bounds.sorted()
    }

    package func observe(_ labels: String..., value: Double) {
        series.withLock { series in
            let isFull = series.count >= LabelledNumbers.seriesLimit && series[labels] == nil
            let key = isFull ? labelNames.map { _ in "other" } : labels
            var one = series[key] ?? Series(counts: bounds.map { _ in 0 })
            for (index, bound) in bounds.enumerated() where value <= bound { one.counts[index] &+= 1 }
            one.count &+= 1
            one.sum += value
            series[key] = one
        }
    }

    package func metricFamilies() -> [MetricFamily] {
        let all = series.withLock { $0 }
        let samples = all.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map { key, one in
            MetricSample(
                Array(zip(labelNames, key)),
                .distribution(
                    buckets: zip(bounds, one.counts).map { (bound: $0, count: $1) }, count: one.count, sum: one.sum))
        }
        return [MetricFamily(name, .histogram, help: help, samples: samples)]
    }
}
