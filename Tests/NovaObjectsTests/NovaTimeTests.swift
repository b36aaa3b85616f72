import NovaObjects
import Testing

@Suite struct NovaTimeTests {
    @Test(arguments: [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05Z"),
        ("2026-01-02 03:04:05.123456", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.999+02:00", "2026-01-02T01:04:05Z"),
        ("2026-01-01T00:30:00+0100", "2025-12-31T23:30:00Z"),
        ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z"),
        ("1969-12-31T23:59:58.5Z", "1969-12-31T23:59:58Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ])
    func `a time is read and written in the form of fields`(text: String, expected: String) {
        #expect(NovaTime(text)?.fieldText == expected)
    }

    @Test func `the other forms keep microseconds`() {
        let time = NovaTime("2026-01-02T03:04:05.000006Z")
        #expect(time?.entityText == "2026-01-02T03:04:05.000006")
        #expect(time?.notificationText == "2026-01-02 03:04:05.000006")
    }

    @Test(arguments: [
        "", "2026", "2026-13-01T00:00:00Z", "2026-01-02T25:00:00Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05ZZ",
        "2026-01-02T03:04:05+", "２０２６-01-02T03:04:05Z",
    ])
    func `a text that is no time is nil`(text: String) {
        #expect(NovaTime(text) == nil)
    }
}
