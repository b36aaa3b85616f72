// Counts the service record up, first five seconds after the start, then every `report_interval`.
import OsloMessaging
import ServiceLifecycle

package struct ServiceHeartbeat<Time: Clock<Duration>>: Service {
    private let record: ServiceRecord
    private let interval: Duration
    private let clock: Time

    package init(_ record: ServiceRecord, interval: Duration, clock: Time) {
        self.record = record
        self.interval = interval
        self.clock = clock
    }

    package func run() async throws {
        do {
            try await cancelWhenGracefulShutdown {
                var next = clock.now.advanced(by: min(.seconds(5), interval))
                while true {
                    try await clock.sleep(until: next, tolerance: nil)
                    await record.beat(context: .administrator())
                    // A slow answer does not shift the rhythm; beats that were missed are not made up for.
                    repeat { next = next.advanced(by: interval) } while next < clock.now
                }
            }
        } catch is CancellationError {
            return
        }
    }
}
