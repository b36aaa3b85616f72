import Chipset
import Glibc
import GuestMemory
import HostSystem
import JSON
import MachineConfiguration
import MachineCore
import MonitorProtocol
import Synchronization
import Testing

@testable import Machine

/// A machine without a processor, its monitor on a thread of its own, and its control socket.
private final class Monitored {
    let accelerator = FakeAccelerator()
    let machine: GuestMachine
    let path = "/tmp/apus-control-\(getpid())-\(UInt64.random(in: 0 ... .max))"
    let last = Monitor<RunState?>(nil)
    private let devices: EventLoop
    private var deviceThread: HostSystem.Thread?, monitorThread: HostSystem.Thread?

    init(balloon: Bool = true, logLimit: Int = 1 << 20, memoryMiB: Int = 16) throws {
        devices = try EventLoop()
        let log = try ConsoleOutput(
            owning: try makeMemoryFile(named: "console", byteCount: 0), limit: logLimit, on: devices)
        let configuration = GuestConfiguration(
            name: "instance-00000001", uuid: .zero, memoryMiB: memoryMiB, cpu: CPUConfiguration(count: 2), kernel: -1,
            rng: true, balloon: balloon)
        machine = try GuestMachine(configuration, accelerator: accelerator, output: log, loop: devices) { _ in
            BootRegisters(mode: .real, rip: 0)
        }
        let monitor = try MachineMonitor(
            machine, log: log, signals: try EndingSignals(), begin: SystemClock.monotonicNanoseconds, staysWhenOff: true
        ) { _ in }
        monitor.perform(.resume)
        try monitor.serve(listening: try listenOnUnixSocket(at: path))
        deviceThread = try HostSystem.Thread(named: "io-test") { [devices] in try? devices.run() }
        monitorThread = try HostSystem.Thread(named: "monitor-test") { [last] in
            let state = try? monitor.run()
            last.update { $0 = state }
        }
    }

    /// The state the monitor ended in, once it has.
    func finish() throws -> RunState? {
        if last.update({ $0 }) == nil { _ = try? Connection(path: path).ask(.quit) }
        // A thread that does not end is left behind: the test has failed, and the next one should run.
        try #require(eventually { last.update { $0 } != nil })
        devices.stop()
        if let thread = deviceThread.take() { thread.join() }
        if let thread = monitorThread.take() { thread.join() }
        unlink(path)
        return last.update { $0 }
    }

    func guestWrites(_ text: String) {
        for byte in text.utf8 { machine.board.serial.write(offset: 0, width: .byte, value: UInt64(byte)) }
    }
}

struct ControlSocketTests {
    @Test func socketIsItsOwnersAlone() throws {
        let path = "/tmp/apus-control-mode-\(getpid())"
        let socket = try listenOnUnixSocket(at: path)
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        #expect(throws: HostError.self) { _ = try listenOnUnixSocket(at: path) }
        #expect(throws: HostError.self) { _ = try listenOnUnixSocket(at: "/tmp/" + String(repeating: "a", count: 200)) }
        unlink(path)
        _ = socket.rawValue
    }

    @Test func clientIsGreetedAndAskedForNothingElse() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        let greeting = try #require(try client.line())
        #expect(try JSONValue.parse(greeting)["QMP"]?["capabilities"] == [])
        let status = try client.status()
        #expect(
            status.state == .running && status.name == "instance-00000001" && status.pid == Int(getpid())
                && status.reason == nil)
        #expect(try client.ask(.qmpCapabilities) == .success([:]))
        #expect(try monitored.finish() == .running)
    }

    @Test func pauseAndResumeAreToldToEveryClient() throws {
        let monitored = try Monitored()
        let asking = try Connection(path: monitored.path), watching = try Connection(path: monitored.path)
        #expect(try watching.status().state == .running)
        #expect(try asking.ask(.pause) == .success([:]))
        _ = try watching.waitFor { $0 == .stop }
        #expect(try watching.status().state == .paused && monitored.accelerator.isClockStopped.withLock { $0 })
        #expect(try asking.ask(.resume) == .success([:]))
        _ = try watching.waitFor { $0 == .resume }
        _ = try asking.waitFor { $0 == .resume }
        #expect(try asking.ask(.powerButton) == .success([:]))
        _ = try watching.waitFor { $0 == .powerdown }
        #expect(try asking.ask(.reset) == .success([:]))
        _ = try watching.waitFor { $0 == .reset(guest: false, reason: "host-qmp-system-reset") }
        #expect(try monitored.finish() == .running)
    }

    @Test func guestThatSwitchesItselfOffLeavesItsReasonUntilQuit() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        _ = try client.status()
        monitored.machine.requests.guestRequestsShutdown()
        _ = try client.waitFor { $0 == .shutdown(guest: true, reason: "guest-shutdown") }
        let status = try client.status()
        #expect(status.state == .shutdown && status.reason == "guest-shutdown")
        guard case .failure(let refusal) = try client.ask(.resume) else {
            return #expect(Bool(false), "resumed a machine that is off")
        }
        #expect(refusal.errorClass == .stateNotAllowed)
        #expect(try client.ask(.quit) == .success([:]))
        #expect(try monitored.finish() == .shutdown)
    }

    @Test func breakdownIsToldWithItsReason() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        _ = try client.status()
        monitored.machine.requests.post(.breakdown(vcpu: 1, reason: "emulation"))
        _ = try client.waitFor { $0 == .internalError(reason: "vcpu 1: emulation") }
        #expect(try client.status().reason == "vcpu 1: emulation")
        #expect(try client.ask(.reset) == .success([:]))
        #expect(try client.status().state == .paused)
        #expect(try monitored.finish() == .paused)
    }

    @Test func consoleGivesTheLogsEndAndItsBoundHolds() throws {
        let monitored = try Monitored(logLimit: 8192)
        let client = try Connection(path: monitored.path)
        monitored.guestWrites("login: ")
        #expect(try ConsoleTail(json: try client.ask(.console(bytes: 100)).get()).text == "login: ")
        #expect(try ConsoleTail(json: try client.ask(.console(bytes: 3)).get()).text == "n: ")
        #expect(try ConsoleTail(json: try client.ask(.console(bytes: 0)).get()).bytes == [])
        for _ in 0..<2000 { monitored.guestWrites("0123456789") }
        let tail = try ConsoleTail(json: try client.ask(.console(bytes: 1 << 20)).get())
        #expect(tail.bytes.count <= 8192 && tail.bytes.count >= 4096 && tail.text.hasSuffix("0123456789"))
        _ = try monitored.finish()
    }

    @Test func statisticsNameEveryProcessorAndDevice() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        var statistics = try MachineStatistics(json: try client.ask(.stats).get())
        // A thread has its number from its first instruction on, and the machine does not wait for that.
        for _ in 0..<1000 where !statistics.vcpus.allSatisfy({ $0.thread > 0 }) {
            usleep(10_000)
            statistics = try MachineStatistics(json: try client.ask(.stats).get())
        }
        #expect(statistics.vcpus.map(\.id) == [0, 1] && statistics.vcpus.allSatisfy { $0.thread > 0 })
        #expect(statistics.memoryMiB == 16 && statistics.residentKiB > 0 && statistics.disks.isEmpty)
        #expect(statistics.balloon?.actualMiB == 16 && statistics.balloon?.targetMiB == 16)
        #expect(try client.ask(.balloon(targetMiB: 12)) == .success([:]))
        #expect(try MachineStatistics(json: try client.ask(.stats).get()).balloon?.targetMiB == 12)
        guard case .failure = try client.ask(.balloon(targetMiB: 17)) else {
            return #expect(Bool(false), "gave more than there is")
        }
        _ = try monitored.finish()
    }

    @Test func commandForADeviceThatIsNotThereSaysSo() throws {
        let monitored = try Monitored(balloon: false)
        let client = try Connection(path: monitored.path)
        guard case .failure(let refusal) = try client.ask(.balloon(targetMiB: 12)) else { return #expect(Bool(false)) }
        #expect(refusal.errorClass == .deviceNotFound)
        #expect(try MachineStatistics(json: try client.ask(.stats).get()).balloon == nil)
        _ = try monitored.finish()
    }

    // MARK: Descriptors

    @Test func runningMachineIsPausedAndSavedToAHandedDescriptorAndBack() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path), watching = try Connection(path: monitored.path)
        _ = try watching.status()
        let file = try makeMemoryFile(named: "state", byteCount: 0)
        #expect(try client.ask(.getfd(name: "state"), with: file.rawValue) == .success([:]))
        monitored.machine.board.serial.write(offset: 1, width: .byte, value: 0x0D)
        try monitored.machine.board.memory.store(UInt64(0x1122_3344), at: GuestAddress(0x5000))
        let report = try SaveReport(json: try client.ask(.save(fdname: "state")).get())
        _ = try watching.waitFor { $0 == .stop }
        #expect(report.bytes == Int(lseek(file.rawValue, 0, SEEK_END)) && report.ramBytes == 4096 && report.nanoseconds > 0)
        #expect(try client.status().state == .paused)
        // In the same process, and over a machine that ran on.
        #expect(try client.ask(.resume) == .success([:]))
        guard case .failure(let early) = try client.ask(.restore(fdname: "state")) else {
            return #expect(Bool(false), "restored into a running machine")
        }
        #expect(early.errorClass == .stateNotAllowed)
        monitored.machine.board.serial.write(offset: 1, width: .byte, value: 0)
        try monitored.machine.board.memory.store(UInt64(0), at: GuestAddress(0x5000))
        #expect(try client.ask(.pause) == .success([:]))
        #expect(try client.ask(.restore(fdname: "state")) == .success([:]))
        #expect(monitored.machine.board.serial.read(offset: 1, width: .byte) == 0x0D)
        #expect(try monitored.machine.board.memory.load(UInt64.self, at: GuestAddress(0x5000)) == 0x1122_3344)
        #expect(try client.status().restoreNanoseconds == nil)
        // The file that RAM is mapped from is not written to.
        guard case .failure(let own) = try client.ask(.save(fdname: "state")) else {
            return #expect(Bool(false), "wrote over its own RAM")
        }
        #expect(own.reason.contains("mapped from that file"), "\(own)")
        #expect(try client.ask(.resume) == .success([:]))
        #expect(eventually { (try? client.status().restoreNanoseconds) != nil })
        _ = try monitored.finish()
    }

    @Test func damagedStateChangesNothingAndTheMachineGoesOn() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        let file = try makeMemoryFile(named: "state", byteCount: 0)
        #expect(try client.ask(.getfd(name: "state"), with: file.rawValue) == .success([:]))
        _ = try client.ask(.save(fdname: "state")).get()
        var byte: UInt8 = 0xFF
        #expect(pwrite(file.rawValue, &byte, 1, 40) == 1)
        guard case .failure(let refusal) = try client.ask(.restore(fdname: "state")) else {
            return #expect(Bool(false), "restored a damaged state")
        }
        #expect(refusal.reason.contains("section header") && refusal.reason.contains("checksum"), "\(refusal)")
        #expect(try client.ask(.resume) == .success([:]))
        #expect(try client.status().state == .running)
        _ = try monitored.finish()
    }

    @Test(arguments: ["pipe", "read only", "appending"])
    func descriptorThatNoStateFitsIntoIsRefusedAndTheGuestRunsOn(kind: String) throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        var ends: [CInt] = [0, 0]
        try #require(pipe(&ends) == 0)
        let file = try makeMemoryFile(named: "state", byteCount: 0)
        let handed = kind == "pipe" ? ends[1] : open("/proc/self/fd/\(file.rawValue)", kind == "read only" ? O_RDONLY : O_RDWR | O_APPEND)
        defer { for number in Set(ends + [handed]) { close(number) } }
        #expect(try client.ask(.getfd(name: "a"), with: handed) == .success([:]))
        guard case .failure(let refusal) = try client.ask(.save(fdname: "a")) else { return #expect(Bool(false), "saved") }
        #expect(refusal.reason.contains(kind == "pipe" ? "no regular file" : "open for"), "\(refusal)")
        #expect(try client.status().state == .running)
        _ = try monitored.finish()
    }

    @Test func whileAMachineIsSavedOthersAreServedAndItStandsStill() throws {
        // RAM that takes a while to look through and write.
        let monitored = try Monitored(memoryMiB: 256)
        try monitored.machine.board.memory.fill(0x5A, at: GuestAddress(0), count: 256 << 20)
        let client = try Connection(path: monitored.path), other = try Connection(path: monitored.path)
        let file = try makeMemoryFile(named: "state", byteCount: 0)
        #expect(try client.ask(.getfd(name: "state"), with: file.rawValue) == .success([:]))
        try client.send(MonitorRequest(.save(fdname: "state"), id: "save").line + MonitorRequest(.status, id: "after").line)
        _ = try other.waitFor { $0 == .stop }
        var refused = 0
        if case .failure(let refusal) = try other.ask(.resume), refusal.errorClass == .stateNotAllowed { refused += 1 }
        if case .failure(let refusal) = try other.ask(.reset), refusal.errorClass == .stateNotAllowed { refused += 1 }
        #expect(try other.status().state == .paused)
        // Replies come in the order of requests.
        #expect(try client.reply().id == "save")
        #expect(try client.reply().id == "after")
        #expect(refused == 2, "the save was over before it was asked to stand still")
        #expect(try other.ask(.resume) == .success([:]))
        _ = try monitored.finish()
    }

    @Test func quitDuringASaveEndsAtOnceAndLeavesNoState() throws {
        let monitored = try Monitored(memoryMiB: 256)
        try monitored.machine.board.memory.fill(0x5A, at: GuestAddress(0), count: 256 << 20)
        let client = try Connection(path: monitored.path), other = try Connection(path: monitored.path)
        let file = try makeMemoryFile(named: "state", byteCount: 0)
        #expect(try client.ask(.getfd(name: "state"), with: file.rawValue) == .success([:]))
        try client.send(MonitorRequest(.save(fdname: "state"), id: "save").line)
        _ = try other.waitFor { $0 == .stop }
        #expect(try other.ask(.quit) == .success([:]))
        #expect(try monitored.finish() == .paused)
        let error = #expect(throws: MachineStateError.self) { _ = try StateFile(reading: file.rawValue) }
        #expect(error?.reason.contains("not finished") == true, "\(String(describing: error))")
    }

    /// A pipe whose write end is handed over: its read end tells when nobody holds the other any more.
    private func pipeEnds() throws -> [CInt] {
        var ends: [CInt] = [0, 0]
        try #require(pipe(&ends) == 0)
        for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
        return ends
    }

    private func isClosed(_ readEnd: CInt) -> Bool {
        var byte: UInt8 = 0
        return read(readEnd, &byte, 1) == 0
    }

    @Test func handedDescriptorsAreKeptByNameAndClosedWhenUnused() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        for way in ["closefd", "replaced", "not taken", "client gone"] {
            let ends = try pipeEnds(), readEnd = ends[0], writeEnd = ends[1]
            defer { close(readEnd) }
            let other = try Connection(path: monitored.path)
            if way == "not taken" {
                _ = try other.ask(.status, with: writeEnd).get()
            } else {
                #expect(try other.ask(.getfd(name: "a"), with: writeEnd) == .success([:]))
            }
            close(writeEnd)
            if way != "not taken" { #expect(!isClosed(readEnd), "\(way)") }
            switch way {
            case "closefd": #expect(try other.ask(.closefd(name: "a")) == .success([:]))
            case "replaced": #expect(try other.ask(.getfd(name: "a"), with: 0) == .success([:]))
            case "client gone": shutdown(other.descriptor, Int32(SHUT_RDWR))
            default: break
            }
            #expect(eventually { isClosed(readEnd) }, "\(way)")
            _ = other.descriptor
        }
        guard case .failure = try client.ask(.getfd(name: "a")) else {
            return #expect(Bool(false), "took a descriptor that did not come")
        }
        guard case .failure = try client.ask(.closefd(name: "a")) else {
            return #expect(Bool(false), "another client's descriptor")
        }
        _ = try monitored.finish()
    }

    @Test func clientThatHandsOverTooManyIsDropped() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        var isDropped = false
        for number in 0..<200 where !isDropped {
            isDropped = (try? client.ask(.getfd(name: "\(number)"), with: 0)) == nil
        }
        #expect(isDropped)
        #expect(try Connection(path: monitored.path).status().state == .running)
        _ = try monitored.finish()
    }

    // MARK: Clients that do not behave

    @Test func garbageIsAnsweredAndTheNextLineToo() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        try client.send(Array("garbage\n\n\r\n{\"execute\":\"launch\",\"id\":7}\n".utf8))
        guard case .failure(let first) = try client.reply().outcome else { return #expect(Bool(false)) }
        #expect(first.errorClass == .genericError)
        let second = try client.reply()
        #expect(second.id == 7)
        #expect(try client.status().state == .running)
        _ = try monitored.finish()
    }

    @Test func lineWithoutEndIsAnsweredAndDropped() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path), other = try Connection(path: monitored.path)
        try? client.send([UInt8](repeating: 0x61, count: LineFramer.requestLimit + 1))
        guard case .failure(let refusal) = try client.reply().outcome else { return #expect(Bool(false)) }
        #expect(refusal.reason.contains("longer than 65536"))
        #expect(try client.line() == nil)
        #expect(try other.status().state == .running)
        _ = try monitored.finish()
    }

    @Test func clientThatNeverReadsHoldsNobodyUp() throws {
        let monitored = try Monitored()
        let deaf = try Connection(path: monitored.path), other = try Connection(path: monitored.path)
        for _ in 0..<200 { monitored.guestWrites(String(repeating: "x", count: 1000)) }
        var timeout = timeval(tv_sec: 0, tv_usec: 100_000)
        setsockopt(deaf.descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        // Until its own side does not take more.
        let line = MonitorRequest(.console(bytes: 1 << 20)).line
        for _ in 0..<20_000 where (try? deaf.send(line)) == nil { break }
        #expect(try other.status().state == .running)
        for _ in 0..<50 {
            #expect(try other.ask(.pause) == .success([:]))
            #expect(try other.ask(.resume) == .success([:]))
        }
        _ = try monitored.finish()
    }

    @Test func seventeenthClientIsRefusedInWords() throws {
        let monitored = try Monitored()
        let clients = try (0..<16).map { _ in try Connection(path: monitored.path) }
        for client in clients { _ = try client.status() }
        let last = try Connection(path: monitored.path)
        guard case .failure(let refusal) = try last.reply().outcome else { return #expect(Bool(false)) }
        #expect(refusal.reason.contains("16 clients"))
        #expect(try clients[15].status().state == .running)
        #expect(try clients[0].ask(.quit) == .success([:]))
        _ = try monitored.finish()
    }

    @Test func clientThatClosesItsSideStillGetsItsReplies() throws {
        let monitored = try Monitored()
        let client = try Connection(path: monitored.path)
        try client.send(MonitorRequest(.status, id: 3).line)
        shutdown(client.descriptor, Int32(SHUT_WR))
        #expect(try client.reply().id == 3)
        #expect(try client.line() == nil)
        _ = try monitored.finish()
    }

    @Test func twentyThousandRandomLinesLeaveItAlive() throws {
        let monitored = try Monitored()
        var random = Numbers(state: 0xC0FFEE)
        let commands: [MonitorCommand] = [
            .status, .stats, .pause, .resume, .powerButton, .reset, .console(bytes: 10), .balloon(targetMiB: 12),
            .getfd(name: "a"),
            .closefd(name: "a"), .save(fdname: "a"), .restore(fdname: "a"), .qmpCapabilities,
        ]
        var client = try Connection(path: monitored.path)
        var answers = 0
        for number in 0..<20_000 {
            var line = MonitorRequest(
                commands[Int.random(in: 0..<commands.count, using: &random)], id: .integer(Int64(number))
            ).line
            for _ in 0..<Int.random(in: 0...3, using: &random) {
                line[Int.random(in: 0..<(line.count - 1), using: &random)] = UInt8.random(
                    in: 0x0B...0xFF, using: &random)
            }
            try client.send(line)
            if number % 50 == 49 {
                // What was asked before is answered before this.
                try client.send(MonitorRequest(.status, id: "end").line)
                while try client.reply().id != "end" { answers += 1 }
            }
            if number % 5000 == 4999 { client = try Connection(path: monitored.path) }
        }
        // Line ends can be damaged too, so some requests run together.
        #expect(answers > 15_000)
        #expect(try [.running, .paused].contains(Connection(path: monitored.path).status().state))
        _ = try monitored.finish()
    }
}

/// SplitMix64: a generator whose numbers are the same in every run.
struct Numbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
