import Chipset
import Glibc
import HostSystem
import MachineCore
import Synchronization
import Testing

/// A listener on a socket of its own with its loop on a thread; everything goes with the test.
private final class Console {
    let wire = Wire(), log = Sink(), loop: EventLoop, listener: ConsoleListener, port: SerialPort
    private var thread: HostSystem.Thread?
    private let address: sockaddr_un

    init(bufferLimit: Int = 1 << 16) throws {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // An abstract name (unix(7)): nothing in the file system.
        let name = "apus-console-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        withUnsafeMutableBytes(of: &address.sun_path) { path in
            for (index, byte) in name.utf8.prefix(100).enumerated() { path[index + 1] = byte }
        }
        self.address = address
        let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let bound = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        try #require(bound == 0 && listen(socket, 4) == 0)
        loop = try EventLoop()
        listener = try ConsoleListener(listening: OwnedDescriptor(owning: socket), on: loop, log: log, bufferLimit: bufferLimit)
        port = SerialPort(name: "uart", line: wire, output: listener)
        listener.connect(to: port)
        port.write(offset: 2, width: .byte, value: 0x01)
        thread = try HostSystem.Thread(named: "console-test") { [loop] in try? loop.run() }
    }

    deinit {
        listener.disconnect()
        loop.stop()
        if let thread = thread.take() { thread.join() }
    }

    func connect() throws -> OwnedDescriptor {
        let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let connected = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        try #require(connected == 0)
        return OwnedDescriptor(owning: socket)
    }

    func guestSends(_ text: String) { for byte in text.utf8 { port.write(offset: 0, width: .byte, value: UInt64(byte)) } }

    /// What the guest reads until `count` bytes came or two seconds went by.
    func guestReads(_ count: Int) -> String {
        var bytes: [UInt8] = []
        _ = eventually {
            while port.read(offset: 5, width: .byte) & 1 != 0 { bytes.append(UInt8(port.read(offset: 0, width: .byte))) }
            return bytes.count >= count
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

private func eventually(_ holds: () -> Bool) -> Bool {
    let end = SystemClock.monotonicNanoseconds + 2_000_000_000
    while SystemClock.monotonicNanoseconds < end {
        if holds() { return true }
        usleep(500)
    }
    return false
}

/// Reads until `count` bytes came, the peer closed, or two seconds went by.
private func read(_ descriptor: CInt, _ count: Int) -> String {
    var bytes: [UInt8] = []
    _ = eventually {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let got = recv(descriptor, &buffer, buffer.count, CInt(MSG_DONTWAIT))
        if got > 0 { bytes += buffer[..<got] }
        return got == 0 || bytes.count >= count
    }
    return String(decoding: bytes, as: UTF8.self)
}

@Suite(.serialized)
struct ConsoleListenerTests {
    @Test func guestAndClientTalkAndTheLogHasItAll() throws {
        let console = try Console()
        console.guestSends("before ")
        let client = try console.connect()
        // The client is served once its bytes arrive.
        _ = send(client.rawValue, "root\n", 5, 0)
        #expect(console.guestReads(5) == "root\n")
        console.guestSends("login: ")
        #expect(read(client.rawValue, 7) == "login: ")
        #expect(console.log.bytes == Array("before login: ".utf8))
    }

    @Test func typedTextLongerThanTheReceiverArrivesWholeAndInOrder() throws {
        let console = try Console()
        let client = try console.connect()
        let text = (0..<400).map { "\($0) " }.joined()
        #expect(send(client.rawValue, text, text.utf8.count, 0) == text.utf8.count)
        #expect(console.guestReads(text.utf8.count) == text)
    }

    /// A driver like Linux's: it looks at the port when its edge-triggered interrupt rises, and at no other time.
    private func echoUntilStopped(_ console: Console, _ isStopped: @autoclosure () -> Bool) {
        let port = console.port
        var echo: [UInt8] = []
        var handled = 0, sends = false
        port.write(offset: 4, width: .byte, value: 0x0B)
        port.write(offset: 1, width: .byte, value: 0x01)
        func enableSending(_ isOn: Bool) {
            guard isOn != sends else { return }
            sends = isOn
            port.write(offset: 1, width: .byte, value: isOn ? 0x03 : 0x01)
        }
        while !isStopped() {
            let edges = console.wire.edges
            guard edges != handled else {
                sched_yield()
                continue
            }
            handled = edges
            while port.read(offset: 2, width: .byte) & 1 == 0 {
                while port.read(offset: 5, width: .byte) & 1 != 0 { echo.append(UInt8(port.read(offset: 0, width: .byte))) }
                if sends {
                    for byte in echo.prefix(16) { port.write(offset: 0, width: .byte, value: UInt64(byte)) }
                    echo.removeFirst(min(16, echo.count))
                }
                enableSending(!echo.isEmpty)
            }
        }
    }

    @Test func driverThatWaitsForEdgesEchoesEveryByte() throws {
        let console = try Console()
        let client = try console.connect()
        let isStopped = Atomic<Bool>(false)
        try withExtendedLifetime(console) {
            nonisolated(unsafe) let shared = console
            let guest = try HostSystem.Thread(named: "guest") { [self] in
                echoUntilStopped(shared, isStopped.load(ordering: .relaxed))
            }
            var echoed = 0
            for round in 0..<500 {
                let text = String(repeating: "\(round) ", count: 1 + round % 60)
                _ = send(client.rawValue, text, text.utf8.count, 0)
                if read(client.rawValue, text.utf8.count) == text { echoed += 1 } else { break }
            }
            #expect(echoed == 500, "stalled in round \(echoed)")
            isStopped.store(true, ordering: .relaxed)
            guest.join()
        }
    }

    @Test func secondClientIsToldAndTheNextOneAfterTheFirstLeavesIsServed() throws {
        let console = try Console()
        var first: OwnedDescriptor? = try console.connect()
        _ = send(first?.rawValue ?? -1, "a", 1, 0)
        #expect(console.guestReads(1) == "a")
        let second = try console.connect()
        #expect(read(second.rawValue, 25) == "this console is in use\r\n")
        first = nil
        #expect(
            eventually {
                guard let third = try? console.connect() else { return false }
                _ = send(third.rawValue, "b", 1, CInt(MSG_NOSIGNAL))
                return console.guestReads(1) == "b"
            })
    }

    @Test func clientThatDoesNotReadLosesOldBytesAndNeverStopsTheGuest() throws {
        let console = try Console(bufferLimit: 4096)
        let client = try console.connect()
        var size: CInt = 4608
        setsockopt(client.rawValue, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(4))
        _ = send(client.rawValue, "x", 1, 0)
        #expect(console.guestReads(1) == "x")
        let line = String(repeating: ".", count: 1000)
        for _ in 0..<1000 { console.guestSends(line) }
        console.guestSends("the end")
        #expect(console.listener.dropped.load(ordering: .relaxed) > 0)
        #expect(console.log.bytes.count == 1_000_007)
        #expect(read(client.rawValue, .max).hasSuffix("the end"))
    }
}

struct LoopTimerTests {
    @Test func timerFiresOnceAtItsMomentAndNotAfterBeingCleared() throws {
        let loop = try EventLoop()
        let timer = try LoopTimer(on: loop)
        let fired = Mutex<[UInt64]>([])
        timer.onExpiry { fired.withLock { $0.append(SystemClock.monotonicNanoseconds) } }
        let thread = try HostSystem.Thread(named: "timer-test") { try? loop.run() }
        let moment = SystemClock.monotonicNanoseconds + 20_000_000
        timer.set(to: moment)
        #expect(eventually { fired.withLock { $0.count == 1 } })
        #expect(fired.withLock { $0.allSatisfy { $0 >= moment } })
        timer.set(to: SystemClock.monotonicNanoseconds + 20_000_000)
        timer.set(to: nil)
        timer.set(to: SystemClock.monotonicNanoseconds + 60_000_000_000)
        usleep(40_000)
        #expect(fired.withLock { $0.count } == 1)
        timer.set(to: 0)
        #expect(eventually { fired.withLock { $0.count == 2 } }, "a moment that has passed is now")
        loop.stop()
        thread.join()
    }
}
