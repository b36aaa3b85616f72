import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import NetworkBackend
import Testing

@testable import VirtIO

private let version1: UInt64 = 1 << 32
private let mergeable: UInt64 = 1 << 15
private let control: UInt64 = 1 << 17 | 1 << 18 | 1 << 23 | 1 << 2
private let multiQueue: UInt64 = 1 << 22

/// Brings an interface up; nil where taps cannot be used here.
private func ioctlUp(_ name: String) -> Bool {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["ip", "link", "set", name, "up"]
    do { try process.run() } catch { return false }
    process.waitUntilExit()
    return process.terminationStatus == 0
}

private let isUsable: Bool = {
    do {
        let probe = try TapQueue(owning: openTap(named: "apusnp", isMultiQueue: false), named: "probe")
        if withExtendedLifetime(probe, { ioctlUp("apusnp") }) { return true }
        print("net tests skipped: an interface cannot be brought up here")
    } catch {
        print("net tests skipped: \(error)")
    }
    return false
}()

private final class NetBench {
    let memory: GuestMemory
    let thread: LoopThread
    let net: VirtIONet
    let function: VirtIOPCIFunction
    let driver: MockDriver
    let name: String
    let receive: MockQueue
    let transmit: MockQueue
    let controlQueue: MockQueue

    init(name: String, pairs: Int = 1, features: UInt64) throws {
        self.name = name
        memory = try GuestMemory(byteCount: 4 << 20)
        thread = try LoopThread()
        let taps = try (0..<pairs).map { _ in
            try TapQueue(owning: openTap(named: name, isMultiQueue: pairs > 1), named: name)
        }
        net = try VirtIONet(taps: taps, mac: [0x52, 0x54, 0, 1, 2, 3], mtu: 1500, loops: [thread.loop])
        function = try VirtIOPCIFunction(
            net, name: "net", memory: memory, interrupts: RecordedInterrupts(), doorbells: nil)
        driver = MockDriver(function: function)
        receive = MockQueue(memory, index: 0, size: 64, base: 0x1_0000)
        transmit = MockQueue(memory, index: 1, size: 64, base: 0x2_0000)
        controlQueue = MockQueue(memory, index: features & multiQueue != 0 ? 2 * pairs : 2, base: 0x3_0000)
        _ = driver.negotiate(features)
        driver.enable(receive, vector: 1)
        driver.enable(transmit, vector: 2)
        driver.enable(controlQueue, vector: 3)
        driver.status = 15
        _ = ioctlUp(name)
    }
    deinit { function.reset() }

    func command(_ bytes: [UInt8]) throws -> UInt8? {
        try memory.write(bytes, at: GuestAddress(0x4_0000))
        try memory.store(UInt8(0xEE), at: GuestAddress(0x4_1000))
        try controlQueue.add([.init(0x4_0000, UInt32(bytes.count), writable: false), .init(0x4_1000, 1, writable: true)])
        driver.notify(controlQueue.index)
        guard try controlQueue.waitForUsed() != nil else { return nil }
        return try memory.load(UInt8.self, at: GuestAddress(0x4_1000))
    }
}

/// A raw socket on `name`, for the host's side of the tap.
private func packetSocket(on name: String) -> CInt {
    let number = socket(17, Int32(SOCK_RAW.rawValue), Int32(UInt16(0x88B5).bigEndian))
    var address = [UInt8](repeating: 0, count: 20)
    address[0] = 17
    address[2] = 0x88
    address[3] = 0xB5
    let index = if_nametoindex(name)
    withUnsafeBytes(of: index) { address.replaceSubrange(4..<8, with: $0) }
    _ = address.withUnsafeBytes { bytes in
        bind(number, bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), 20)
    }
    var timeout = timeval(tv_sec: 3, tv_usec: 0)
    setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    return number
}

/// A frame of the local experimental ethertype, to everybody.
private func frame(_ count: Int, _ byte: UInt8) -> [UInt8] {
    [UInt8](repeating: 0xFF, count: 6) + [0x52, 0x54, 0, 9, 9, 9, 0x88, 0xB5] + [UInt8](repeating: byte, count: count - 14)
}

@Suite(.serialized) struct NetTests {
    @Test(.enabled(if: isUsable)) func frameFromTheGuestReachesTheHost() throws {
        let bench = try NetBench(name: "apusn0", features: version1)
        let socket = packetSocket(on: "apusn0")
        defer { close(socket) }
        let sent = frame(100, 0x5A)
        try bench.memory.write([UInt8](repeating: 0, count: 12), at: GuestAddress(0x5_0000))
        try bench.memory.write(sent, at: GuestAddress(0x6_0000))
        try bench.transmit.add([.init(0x5_0000, 12, writable: false), .init(0x6_0000, 100, writable: false)])
        bench.driver.notify(1)
        #expect(try bench.transmit.waitForUsed()?.length == 0)
        var received = [UInt8](repeating: 0, count: 2000)
        #expect(recv(socket, &received, 2000, 0) == 100)
        #expect(Array(received[..<100]) == sent)
        #expect(bench.net.counters.values.writeBytes == 100)
    }

    @Test(.enabled(if: isUsable), arguments: [0, mergeable])
    func frameFromTheHostReachesTheGuest(extra: UInt64) throws {
        let bench = try NetBench(name: "apusn1", features: version1 | extra)
        let socket = packetSocket(on: "apusn1")
        defer { close(socket) }
        // Merged: buffers of 200 bytes, several to a frame. Else one buffer holds it.
        let size: UInt32 = extra == 0 ? 1600 : 200
        for number in 0..<32 { try bench.receive.add([.init(0x10_0000 + UInt64(number) * 0x1000, size, writable: true)]) }
        bench.driver.notify(0)
        let sent = frame(700, 0xC3)
        // The interface also carries the kernel's own chatter: look for our frame among what arrives.
        var found = false
        for _ in 0..<20 where !found {
            #expect(send(socket, sent, sent.count, 0) == 700)
            guard let first = try bench.receive.waitForUsed() else { break }
            let base = 0x10_0000 + UInt64(first.head) * 0x1000
            let count = Int(try bench.memory.load(UInt16.self, at: GuestAddress(base + 10)))
            var bytes = try bench.memory.bytes(at: GuestAddress(base), count: Int(first.length))
            for _ in 1..<max(count, 1) {
                guard let next = try bench.receive.waitForUsed() else { break }
                bytes += try bench.memory.bytes(
                    at: GuestAddress(0x10_0000 + UInt64(next.head) * 0x1000), count: Int(next.length))
            }
            found = Array(bytes.dropFirst(12)) == sent && count == (extra == 0 ? 1 : 4)
        }
        #expect(found)
    }

    @Test(.enabled(if: isUsable)) func controlCommandsAreCheckedAndCarriedOut() throws {
        let bench = try NetBench(name: "apusn2", pairs: 2, features: version1 | control | multiQueue | 3 << 7 | 2)
        #expect(try bench.command([0, 0, 1]) == 0)
        #expect(try bench.command([1, 1, 2, 0, 0, 0, 0, 9]) == 0)
        #expect(bench.driver.read(0x2005, .byte) == 9)
        #expect(try bench.command([1, 1, 2]) == 1)
        #expect(try bench.command([4, 0, 2, 0]) == 0)
        #expect(try bench.command([4, 0, 3, 0]) == 1)
        #expect(try bench.command([4, 0, 0, 0]) == 1)
        #expect(try bench.command([5, 0, 2, 0, 0, 0, 0, 0, 0, 0]) == 0)
        #expect(try bench.command([5, 0, 0, 4, 0, 0, 0, 0, 0, 0]) == 1)
        #expect(try bench.command([77, 0]) == 1)
        #expect(try bench.command([0]) == 1)
        #expect(bench.driver.status & 64 == 0)
    }

    @Test(.enabled(if: isUsable)) func buffersInHandGoBackToTheRingOnPause() throws {
        let bench = try NetBench(name: "apusn3", features: version1 | mergeable)
        for number in 0..<4 { try bench.receive.add([.init(0x10_0000 + UInt64(number) * 0x1000, 64, writable: true)]) }
        bench.driver.notify(0)
        usleep(20_000)
        #expect(bench.function.pause())
        let position = try #require(bench.net.positions[0])
        #expect(position.nextAvailable == position.nextUsed)
        var writer = StateWriter()
        bench.function.saveState(into: &writer)
        bench.function.resume()
        #expect(bench.driver.status == 15)
    }

    @Test(.enabled(if: isUsable)) func frameWithoutAHeaderIsCountedAndDropped() throws {
        let bench = try NetBench(name: "apusn4", features: version1)
        try bench.transmit.add([.init(0x5_0000, 11, writable: false)])
        bench.driver.notify(1)
        #expect(try bench.transmit.waitForUsed() != nil)
        #expect(bench.net.counters.values.errors == 1)
    }
}
