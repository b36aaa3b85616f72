// Metrics as values: what a source reports when it is asked (Prometheus data model).

package struct MetricFamily: Sendable, Equatable {
    package enum Kind: String, Sendable { case counter, gauge, histogram }

    /// Counters end in "_total".
    package let name: String
    package let help: String
    package let kind: Kind
    package var samples: [MetricSample]

    package init(_ name: String, _ kind: Kind, help: String, samples: [MetricSample]) {
        self.name = name
        self.help = help
        self.kind = kind
        self.samples = samples
    }
}

package struct MetricSample: Sendable, Equatable {
    package enum Value: Sendable, Equatable {
        case number(Double)
        /// Upper bounds with the count at or below each (without +Inf), then all observations' count and sum.
        case distribution(buckets: [(bound: Double, count: UInt64)], count: UInt64, sum: Double)

        package static func == (left: Value, right: Value) -> Bool {
            switch (left, right) {
            case (.number(let left), .number(let right)): left == right
            case (
                .distribution(let leftBuckets, let leftCount, let leftSum),
                .distribution(let rightBuckets, let rightCount, let rightSum)
            ):
                leftCount == rightCount && leftSum == rightSum
                    && leftBuckets.elementsEqual(rightBuckets) { $0 == $1 }
            default: false
            }
        }
    }
    package let labels: [(String, String)]
    package let value: Value

    package init(_ labels: [(String, String)], _ value: Value) {
        self.labels = labels
        self.value = value
    }

    package init(_ labels: [(String, String)], _ number: Double) { self.init(labels, .number(number)) }

    package static func == (left: MetricSample, right: MetricSample) -> Bool {
        left.value == right.value && left.labels.elementsEqual(right.labels) { $0 == $1 }
    }
}

/// An object that counts. Called on any thread, at each scrape: it must not block and must not ask a guest.
package protocol MetricSource: Sendable {
    func metricFamilies() -> [MetricFamily]
}

/// A source that passes on its children, so that a scrape is a walk over the tree of who owns what.
package struct MetricTree: MetricSource {
    private let children: @Sendable () -> [any MetricSource]

    package init(_ children: @escaping @Sendable () -> [any MetricSource]) { self.children = children }

    package func metricFamilies() -> [MetricFamily] { children().flatMap { $0.metricFamilies() } }
}
