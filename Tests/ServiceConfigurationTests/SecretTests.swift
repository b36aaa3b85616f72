import ServiceConfiguration
import Testing

@Suite struct SecretTests {
    private func load() throws -> LoadedConfiguration {
        try Configuration.load(
            files: ConfigurationFiles(paths: []), environment: [:],
            overrides: [
                ("DEFAULT", "transport_url", "rabbit://nova:s3cret@h1:5672,nova:s3c@ret@h2/nova"),
                ("placement", "auth_url", "http://k/v3"), ("placement", "username", "nova"),
                ("placement", "password", "s3cret"),
                ("oslo_messaging_notifications", "transport_url", "rabbit://u:s3cret@h3/"),
            ], host: HostDefaults(hostName: "host1", address: "192.0.2.7"))
    }

    @Test func `no way of printing a configuration shows a secret`() throws {
        let configuration = try load().configuration
        var dumped = ""
        dump(configuration, to: &dumped)
        dump(configuration.placement, to: &dumped)
        dump([configuration.messaging], to: &dumped)
        for text in [
            "\(configuration)", String(reflecting: configuration), "\([configuration.placement])",
            String(reflecting: configuration.messaging), "\(configuration.notifications)", dumped,
        ] {
            #expect(!text.contains("s3c"))
        }
    }

    @Test func `options in effect name their origin and hide passwords`() throws {
        let options = try load().effective
        let url = try #require(options.first { $0.group == "DEFAULT" && $0.name == "transport_url" })
        #expect(url.value == "rabbit://nova:****@h1:5672,nova:****@h2/nova")
        #expect(url.origin == .commandLine)
        #expect(options.first { $0.group == "placement" && $0.name == "password" }?.value == "****")
        let interval = try #require(options.first { $0.name == "report_interval" })
        #expect(interval.value == "10")
        #expect(interval.origin == .preset)
        #expect(!options.contains { $0.value.contains("s3c") })
    }
}
