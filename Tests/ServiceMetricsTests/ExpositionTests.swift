// The text format, byte for byte, and by Prometheus' own checker.
import Foundation
import ServiceMetrics
import Testing

@Suite struct ExpositionTests {
    @Test func labelValuesWithQuotesBackslashesAndNewlinesAreEscaped() {
        let family = MetricFamily(
            "apus_x", .gauge, help: "one\ntwo \\ \"three\"", samples: [MetricSample([("name", "a\"b\\c\nd")], 1.5)])
        #expect(
            Exposition.text([family])
                == "# HELP apus_x one\\ntwo \\\\ \"three\"\n# TYPE apus_x gauge\napus_x{name=\"a\\\"b\\\\c\\nd\"} 1.5\n"
        )
    }

    @Test func familiesOfOneNameFromTwoSourcesAreJoinedAndDuplicateSamplesDropped() {
        let one = MetricFamily("apus_x", .gauge, help: "x", samples: [MetricSample([("a", "1")], 1)])
        let two = MetricFamily(
            "apus_x", .gauge, help: "x", samples: [MetricSample([("a", "1")], 9), MetricSample([("a", "2")], 2)])
        #expect(
            Exposition.text([one, two])
                == "# HELP apus_x x\n# TYPE apus_x gauge\napus_x{a=\"1\"} 1\napus_x{a=\"2\"} 2\n")
    }

    @Test func observationsFallIntoCumulativeBuckets() {
        let histogram = Histogram("apus_h_seconds", help: "h", bounds: [1, 2])
        for value in [0.5, 1, 1.5, 7] { histogram.observe(value: value) }
        let text = Exposition.text(histogram.metricFamilies())
        #expect(text.contains("apus_h_seconds_bucket{le=\"1\"} 2\napus_h_seconds_bucket{le=\"2\"} 3\n"))
        #expect(text.contains("apus_h_seconds_bucket{le=\"+Inf\"} 4\napus_h_seconds_sum 10\napus_h_seconds_count 4\n"))
    }

    @Test func seriesBeyondTheLimitAreCountedTogether() {
        let counter = Counter("apus_c_total", help: "c", labels: ["method"])
        for index in 0..<1500 { counter.increment("m\(index)") }
        #expect(counter.metricFamilies()[0].samples.count == 1001)
        #expect(counter.value("other") == 500)
    }

    static let promtool = ["/usr/bin/promtool", "/usr/local/bin/promtool"].first(
        where: FileManager.default.isExecutableFile(atPath:))

    @Test(.enabled(if: promtool != nil, "promtool (Debian package prometheus) is not installed"))
    func promtoolFindsNothingWrongWithAllMetrics() throws {
        let text = Exposition.text(Self.everything().metricFamilies())
        let check = Process()
        check.executableURL = URL(fileURLWithPath: try #require(Self.promtool))
        check.arguments = ["check", "metrics"]
        let (input, output) = (Pipe(), Pipe())
        check.standardInput = input
        check.standardOutput = output
        check.standardError = output
        try check.run()
        try input.fileHandleForWriting.write(contentsOf: Data(text.utf8))
        try input.fileHandleForWriting.close()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        check.waitUntilExit()
        #expect(check.terminationStatus == 0, "\(said)")
        #expect(said == "")
    }

    /// Every metric with at least one sample.
    static func everything() -> MetricTree {
        let compute = ComputeMetrics(version: "0.1", rpcVersion: "6.1", serviceVersion: 64, host: "h\"1")
        compute.finished("build_and_run_instance", outcome: "success", after: .milliseconds(1500))
        compute.operationsInFlight.add("build_and_run_instance", amount: 1)
        compute.rpcReceived.increment("ping")
        compute.rpcReplied.increment("ping", "success")
        compute.rpcDropped.increment("malformed")
        compute.amqpConnected.set("rpc", to: 1)
        compute.amqpReconnects.increment("rpc")
        var guest = GuestSample(domain: "instance-00000001", uuid: "6f6d7c5e-0000-4000-8000-000000000001")
        guest.vcpuSeconds = [1.25, 3]
        guest.residentBytes = 5 << 20
        guest.blocks = [GuestSample.Block(device: "vda")]
        guest.networks = [GuestSample.Network(device: "tap0")]
        let guests = [guest]
        let guestMetrics = GuestMetrics { guests }
        return MetricTree { [compute, guestMetrics] }
    }
}
