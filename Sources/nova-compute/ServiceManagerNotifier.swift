// sd_notify(3): datagrams to the socket that systemd names, where it names one. Nothing here may fail the service.
import Foundation
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle

struct ServiceManagerNotifier: Sendable {
    private let path: String?
    private let watchdogInterval: Duration?

    init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        // "@name" is an abstract socket, which systemd does not use for services.
        path = environment["NOTIFY_SOCKET"].flatMap { $0.hasPrefix("/") ? $0 : nil }
        let isForUs = environment["WATCHDOG_PID"].map { $0 == "\(ProcessInfo.processInfo.processIdentifier)" } ?? true
        let period = environment["WATCHDOG_USEC"].flatMap { Int64($0) } ?? 0
        watchdogInterval = isForUs && period > 0 ? .microseconds(period / 2) : nil
    }

    func notify(_ state: String) async {
        guard let path else { return }
        do {
            let channel = try await DatagramBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connect(unixDomainSocketPath: path).get()
            let address = try SocketAddress(unixDomainSocketPath: path)
            let message = AddressedEnvelope(remoteAddress: address, data: channel.allocator.buffer(string: state))
            try await channel.writeAndFlush(message)
            try await channel.close()
        } catch {
            Logger(label: "nova.service").debug("service manager not told", error: error)
        }
    }

    /// Sends WATCHDOG=1 at half the period; where the cooperative pool is stuck, it does not, and systemd restarts the
    /// service.
    var watchdog: (any Service)? { watchdogInterval.map { Watchdog(notifier: self, interval: $0) } }

    private struct Watchdog: Service, CustomStringConvertible {
        var description: String { "watchdog" }
        let notifier: ServiceManagerNotifier
        let interval: Duration

        func run() async throws {
            do {
                try await cancelWhenGracefulShutdown {
                    while true {
                        await notifier.notify("WATCHDOG=1")
                        try await Task.sleep(for: interval)
                    }
                }
            } catch is CancellationError {
                return
            }
        }
    }
}
