// Counters and gauges by label values. The number of series is bounded: a value that a peer chooses (a method's name, say)
// must not grow the table without end, so further series are counted together under "other".
import Synchronization

struct LabelledNumbers: ~Copyable {
    static let seriesLimit = 1000
    private let values = Mutex<[[String]: Double]>([:])
    let labelNames: [String]

    init(labelNames: [String]) { self.labelNames = labelNames }

    func change(_ labels: [String], _ change: (inout Double) -> Void) {
        values.withLock { values in
            let isFull = values.count >= Self.seriesLimit && values[labels] == nil
            change(&values[isFull ? labelNames.map { _ in "other" } : labels, default: 0])
        }
    }

    func value(_ labels: [String]) -> Double { values.withLock { $0[labels] ?? 0 } }

    func samples() -> [MetricSample] {
        let values = values.withLock { $0 }
        if values.isEmpty, labelNames.isEmpty { return [MetricSample([], 0)] }
        return values.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map {
            MetricSample(Array(zip(labelNames, $0.key)), $0.value)
        }
    }
}

/// Only rises.
package final class Counter: MetricSource {
    private let name: String
    private let help: String
    private let numbers: LabelledNumbers

    package init(_ name: String, help: String, labels: [String] = []) {
        self.name = name
        self.help = help
        numbers = LabelledNumbers(labelNames: labels)
    }

    /// `labels` are the values, in the order of the names. A negative amount counts as none.
    package func increment(_ labels: String..., by amount: Double = 1) {
        numbers.change(labels) { $0 += max(0, amount) }
    }

    package func value(_ labels: String...) -> Double { numbers.value(labels) }

    package func metricFamilies() -> [MetricFamily] {
        [MetricFamily(name, .counter, help: help, samples: numbers.samples())]
    }
}

/// Rises and falls.
package final class Gauge: MetricSource {
    private let name: String
    private let help: String
    private let numbers: LabelledNumbers

    package init(_ name: String, help: String, labels: [String] = []) {
        self.name = name
        self.help = help
        numbers = LabelledNumbers(labelNames: labels)
    }

    package func set(_ labels: String..., to value: Double) { numbers.change(labels) { $0 = value } }

    package func add(_ labels: String..., amount: Double) { numbers.change(labels) { $0 += amount } }

    package func value(_ labels: String...) -> Double { numbers.value(labels) }

    package func metricFamilies() -> [MetricFamily] {
        [MetricFamily(name, .gauge, help: help, samples: numbers.samples())]
    }
}
