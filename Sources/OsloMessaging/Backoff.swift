// How long to wait before the next attempt to connect: 1 s, then 2 s more each time up to 30 s, and 1 s before each attempt.

struct Backoff: Sendable {
    private let options: RabbitOptions
    private var failures = 0

    init(_ options: RabbitOptions) {
        self.options = options
    }

    /// The wait after one more failure. The first attempt after a loss only waits for the reconnect delay.
    mutating func next() -> Duration {
        defer { failures += 1 }
        let delay = Duration.milliseconds(Int(max(0, min(3600, options.reconnectDelay)) * 1000))
        guard failures > 0 else { return delay }
        let steps = min(failures - 1, 10_000)
        let seconds = min(options.retryInterval + steps * min(options.retryBackoff, 3600), options.retryIntervalMaximum)
        return delay + .seconds(seconds)
    }

    mutating func reset() { failures = 0 }
}
