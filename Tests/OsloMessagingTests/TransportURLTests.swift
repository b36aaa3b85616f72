import AMQP
import Testing

@testable import OsloMessaging

@Suite struct TransportURLTests {
    @Test func severalHostsShareTheVirtualHost() throws {
        let url = try TransportURL("rabbit://nova:p%40ss@h1:5673,other:x@[fd00::1]:5674/nova?ssl=true&heartbeat_rate=3")
        #expect(
            url.brokers == [
                BrokerAddress(host: "h1", port: 5673, user: "nova", password: "p@ss", virtualHost: "nova"),
                BrokerAddress(host: "fd00::1", port: 5674, user: "other", password: "x", virtualHost: "nova"),
            ])
        #expect(url.query == ["ssl": "true", "heartbeat_rate": "3"])
    }

    @Test(arguments: ["rabbit://", "rabbit:///", "rabbit://localhost", "kombu://localhost:5672/"])
    func defaultsAreGuestOnLocalhost(_ text: String) throws {
        #expect(
            try TransportURL(text).brokers == [
                BrokerAddress(host: "localhost", port: 5672, user: "guest", password: "guest", virtualHost: "/")
            ])
    }

    @Test func virtualHostMayHaveASlash() throws {
        #expect(try TransportURL("rabbit://h//nova").brokers[0].virtualHost == "/nova")
        #expect(try TransportURL("rabbit://h/%2Fnova").brokers[0].virtualHost == "/nova")
    }

    @Test(arguments: [
        "", "h:5672", "amqp://h", "rabbit://h:x/", "rabbit://h:0/", "rabbit://h:70000/", "rabbit://[::1/",
        "rabbit://u%zz@h/",
        "rabbit://u%@h/", "rabbit://%ff@h/", "rabbit://[::1]x/",
    ])
    func malformedURLsAreErrorsWithoutThePassword(_ text: String) {
        #expect(throws: TransportURLError.self) { try TransportURL(text) }
    }

    @Test func queryOverridesOptions() throws {
        let url = try TransportURL("rabbit://h/?ssl=1&ssl_ca_file=/ca&amqp_durable_queues=true&rabbit_interval_max=7")
        let options = try RabbitOptions().overridden(by: url.query)
        #expect(options.usesTLS && options.tls.caFile == "/ca")
        #expect(options.areQueuesDurable && options.retryIntervalMaximum == 7)
    }
}
