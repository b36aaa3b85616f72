import JSON
import MonitorProtocol
import Testing

struct MessageTests {
    private static let commands: [MonitorCommand] = [
        .qmpCapabilities, .status, .stats, .pause, .resume, .powerButton, .reset, .quit, .console(bytes: 100),
        .balloon(targetMiB: 128),
        .getfd(name: "a"), .closefd(name: "a"), .save(fdname: "a"), .restore(fdname: "a"),
    ]

    @Test(arguments: commands)
    func requestReadsBackEqual(command: MonitorCommand) throws {
        for id: JSONValue? in [nil, 7, "a", .null, ["b": 1]] {
            let request = MonitorRequest(command, id: id)
            #expect(request.line.last == 0x0A)
            #expect(try MonitorRequest(parsing: request.line.dropLast()) == request)
        }
    }

    @Test(arguments: [
        ("", "GenericError"), ("nonsense", "GenericError"), ("[]", "GenericError"), ("{}", "GenericError"),
        (#"{"execute":5}"#, "GenericError"),
        (#"{"execute":"launch"}"#, "CommandNotFound"), (#"{"execute":"no such command"}"#, "CommandNotFound"),
        (#"{"execute":"status","more":1}"#, "GenericError"),
        (#"{"execute":"status","arguments":{"a":1}}"#, "GenericError"),
        (#"{"execute":"status","arguments":5}"#, "GenericError"), (#"{"execute":"balloon"}"#, "GenericError"),
        (#"{"execute":"balloon","arguments":{"targetMiB":0}}"#, "GenericError"),
        (#"{"execute":"console","arguments":{"bytes":-1}}"#, "GenericError"),
        (#"{"execute":"getfd","arguments":{"fdname":""}}"#, "GenericError"),
    ])
    func lineThatIsNoRequestIsRefusedByItsClass(line: String, errorClass: String) {
        let error = #expect(throws: RequestError.self) { try MonitorRequest(parsing: Array(line.utf8)) }
        #expect(error?.refusal.errorClass.rawValue == errorClass)
    }

    @Test func refusedRequestKeepsItsID() throws {
        let error = #expect(throws: RequestError.self) {
            try MonitorRequest(parsing: Array(#"{"execute":"launch","id":[1]}"#.utf8))
        }
        #expect(error?.reply.id == [1])
    }

    @Test(
        arguments: [
            .resume, .stop, .reset(guest: true, reason: "guest-reset"),
            .shutdown(guest: false, reason: "host-qmp-quit"), .powerdown,
            .guestPanicked(reason: "crash"), .guestCrashLoaded, .watchdog(action: "none"), .internalError(reason: "vcpu 0: triple fault"),
            .other(name: "NEW", data: ["a": 1]),
        ] as [MonitorEvent.News])
    func eventReadsBackEqual(news: MonitorEvent.News) throws {
        let message = MonitorMessage.event(MonitorEvent(news, seconds: 1_700_000_000, microseconds: 12))
        #expect(try MonitorMessage(parsing: message.line.dropLast()) == message)
    }

    @Test func repliesAndGreetingReadBackEqual() throws {
        let refusal = MonitorRefusal(.stateNotAllowed, "the machine is off")
        let messages: [MonitorMessage] = [
            .greeting(version: "0.1"), .reply(MonitorReply(id: 3, outcome: .success([:]))),
            .reply(MonitorReply(id: nil, outcome: .failure(refusal))),
        ]
        for message in messages { #expect(try MonitorMessage(parsing: message.line.dropLast()) == message) }
        for text in ["", "{}", "5", #"{"error":{}}"#, #"{"event":"STOP"}"#] {
            #expect(throws: MessageError.self) { try MonitorMessage(parsing: Array(text.utf8)) }
        }
    }

    @Test func statusReadsBackEqualInEveryState() throws {
        for state in RunState.allCases {
            let status = MachineStatus(
                state: state, reason: state.executes ? nil : "why", name: "n", uuid: "u", pid: 42, uptimeNanoseconds: 5)
            #expect(try MachineStatus(json: status.json) == status)
            #expect(status.json["running"]?.boolValue == (state == .running))
        }
    }

    @Test func saveAndRestoreAreReportedInNumbers() throws {
        let report = SaveReport(bytes: 270_000_000, ramBytes: 90_000_000, nanoseconds: 1_500_000_000)
        #expect(try SaveReport(json: report.json) == report)
        #expect(throws: JSONMemberError.self) { try SaveReport(json: ["bytes": -1, "ramBytes": 0, "nanoseconds": 0]) }
        #expect(throws: JSONMemberError.self) { try SaveReport(json: [:]) }
        let status = MachineStatus(state: .running, reason: nil, name: "n", uuid: "u", pid: 42, uptimeNanoseconds: 5, restoreNanoseconds: 4)
        #expect(try MachineStatus(json: status.json) == status)
        #expect(status.json["restoreNanoseconds"] == 4)
    }

    @Test func statisticsReadBackEqual() throws {
        var disk = DiskStatistics(id: "virtio-disk0")
        disk.writeBytes = 4096
        var network = NetworkStatistics(id: "tap0", mac: "fa:16:3e:00:00:01")
        network.sendDrops = 2
        var statistics = MachineStatistics(
            vcpus: [VCPUStatistics(id: 0, cpuNanoseconds: 7, thread: 99)], memoryMiB: 256, residentKiB: 9000,
            balloon: BalloonReport(actualMiB: 256, targetMiB: 128, statistics: ["free-memory": 1 << 30]), disks: [disk],
            networks: [network])
        #expect(try MachineStatistics(json: statistics.json) == statistics)
        statistics.balloon = nil
        #expect(try MachineStatistics(json: statistics.json) == statistics)
        #expect(throws: JSONMemberError.self) { try MachineStatistics(json: ["vcpus": 5]) }
    }

    @Test func consoleTailKeepsBytesThatAreNoText() throws {
        for count in 0..<70 {
            let tail = ConsoleTail(bytes: (0..<count).map { UInt8(truncatingIfNeeded: 200 + $0) })
            #expect(try ConsoleTail(json: tail.json) == tail)
        }
        #expect(ConsoleTail(bytes: Array("login: ".utf8)).json["text"] == "login: ")
        for text in ["A", "A===", "AA=A", "AAA*"] {
            #expect(throws: JSONMemberError.self) { try ConsoleTail(json: ["base64": .string(text)]) }
        }
    }

    @Test func damagedRequestsNeverTrap() {
        var random = SplitMix(state: 0x5EED)
        for round in 0..<20_000 {
            var line = Array(MonitorRequest(Self.commands[round % Self.commands.count], id: 1).line.dropLast())
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                line[Int.random(in: 0..<line.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            // Either reads or is refused; the process must live.
            _ = try? MonitorRequest(parsing: line)
            _ = try? MonitorMessage(parsing: line)
        }
    }
}

struct LineFramerTests {
    @Test func linesComeOutHoweverTheyAreCut() throws {
        let stream = Array("one\r\ntwo\n\nthree\nrest".utf8)
        for size in 1...stream.count {
            var framer = LineFramer(limit: 8)
            var lines: [String] = []
            for start in stride(from: 0, to: stream.count, by: size) {
                framer.append(stream[start..<min(start + size, stream.count)])
                while let line = try framer.next() { lines.append(String(decoding: line, as: UTF8.self)) }
            }
            #expect(lines == ["one", "two", "", "three"])
        }
    }

    @Test func lineAtTheBoundComesOutAndALongerOneIsAnError() throws {
        var framer = LineFramer(limit: 4)
        framer.append("1234\n".utf8)
        #expect(try framer.next() == Array("1234".utf8))
        framer.append("12345".utf8)
        #expect(throws: LineTooLong(limit: 4)) { try framer.next() }
        framer.append("\n".utf8)
        #expect(throws: LineTooLong(limit: 4)) { try framer.next() }
    }
}
