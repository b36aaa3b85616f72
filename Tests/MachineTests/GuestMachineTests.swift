import Chipset
import Glibc
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import MonitorProtocol
import Synchronization
import Testing

@testable import Machine

final class CapturedOutput: SerialOutput {
    private let bytes = Mutex<[UInt8]>([])
    func write(_ byte: UInt8) { bytes.withLock { $0.append(byte) } }
    var text: String { String(decoding: bytes.withLock { $0 }, as: UTF8.self) }
}

/// The board and its processors' threads, driven by hand, with no processor behind them.
struct GuestMachineTests {
    private let accelerator = FakeAccelerator()
    private let output = CapturedOutput()
    private let loop: EventLoop
    private let machine: GuestMachine
    private let driver: StateDriver

    init() throws {
        loop = try EventLoop()
        machine = try Self.make(accelerator, output, loop)
        driver = StateDriver(machine, requests: machine.requests, policies: MachinePolicies()) { _ in }
        try driver.perform(.resume)
    }

    private static func make(_ accelerator: FakeAccelerator, _ output: CapturedOutput, _ loop: EventLoop, memoryMiB: Int = 16) throws -> GuestMachine {
        let configuration = GuestConfiguration(
            name: "test", uuid: .zero, memoryMiB: memoryMiB, cpu: CPUConfiguration(count: 2), kernel: -1, rng: true, balloon: true)
        return try GuestMachine(configuration, accelerator: accelerator, output: output, loop: loop) { _ in BootRegisters(mode: .real, rip: 0) }
    }

    private var vcpu: FakeVCPU { accelerator.vcpus.withLock { $0[0] } }

    /// Lets vCPU 0 make these exits and serves what comes of them.
    private func guestDoes(_ exits: [VMExit], values: [UInt64] = [], until condition: @escaping () -> Bool) -> Bool {
        vcpu.give(exits, values: values)
        return eventually {
            driver.serveGuestRequests()
            return condition()
        }
    }

    private func finish() throws { try driver.perform(.quit) }

    @Test func repeatedOutputReachesTheSerialPortInOrder() throws {
        let sent = guestDoes([.portWrite(port: 0x3F8, width: .byte, count: 3)], values: [0x61, 0x62, 0x63]) { output.text == "abc" }
        #expect(sent, "\(output.text)")
        try finish()
    }

    @Test func readsOfUnclaimedPortsAndMemoryAreAllOnes() throws {
        let answered = guestDoes([
            .portRead(port: 0x1234, width: .word, count: 2), .memoryRead(address: GuestAddress(0xBFFF_0000_0000), byteCount: 4),
        ]) { vcpu.state.update { $0.supplied } == [0xFFFF, 0xFFFF, 0xFFFF_FFFF] }
        #expect(answered)
        try finish()
    }

    @Test(arguments: [
        (port: UInt16(0xCF9), value: UInt64(6)), (port: 0x64, value: 0xFE), (port: 0x92, value: 1),
    ])
    func eachResetPortResetsTheMachineAndItRunsOn(way: (port: UInt16, value: UInt64)) throws {
        let reset = guestDoes([.portWrite(port: way.port, width: .byte, count: 1)], values: [way.value]) {
            vcpu.state.update { $0.boots == 2 && $0.restores == 1 }
        }
        #expect(reset && driver.state == .running)
        #expect(guestDoes([.portWrite(port: 0x3F8, width: .byte, count: 1)], values: [0x72]) { output.text == "r" })
        try finish()
    }

    @Test func tripleFaultResetsAndItRunsOn() throws {
        #expect(guestDoes([.shutdown]) { vcpu.state.update { $0.boots == 2 } } && driver.state == .running)
        #expect(guestDoes([.portWrite(port: 0x3F8, width: .byte, count: 1)], values: [0x72]) { output.text == "r" })
        try finish()
    }

    @Test func sleepWithTypeOfS5ShutsDown() throws {
        let down = guestDoes([.portWrite(port: 0x604, width: .word, count: 1)], values: [1 << 13]) { driver.state == .shutdown }
        #expect(down)
        try finish()
    }

    @Test func internalErrorOrRefusedEntryIsAStateOfTheGuest() throws {
        #expect(guestDoes([.internalError(code: 1, detail: "emulation")]) { driver.state == .internalError })
        #expect(driver.breakdown == "vcpu 0: emulation (1)")
        try driver.perform(.reset)
        try driver.perform(.resume)
        #expect(guestDoes([.failedEntry(reason: 0x80000021)]) { driver.state == .internalError })
        try driver.perform(.reset)
        try driver.perform(.resume)
        #expect(guestDoes([.systemEvent(kind: 99)]) { driver.state == .internalError && driver.breakdown?.contains("KVM_RUN") == true })
        try finish()
    }

    @Test func pauseStopsEveryProcessorAndItsClockAndResumeStartsThem() throws {
        try driver.perform(.pause)
        #expect(accelerator.isClockStopped.withLock { $0 })
        vcpu.give([.portWrite(port: 0x3F8, width: .byte, count: 1)], values: [0x70])
        #expect(output.text == "")
        try driver.perform(.resume)
        #expect(eventually { output.text == "p" } && !accelerator.isClockStopped.withLock { $0 })
        try finish()
    }

    @Test func pausingAThousandTimesNeverLosesAKick() throws {
        for _ in 0..<1000 {
            try driver.perform(.pause)
            try driver.perform(.resume)
        }
        #expect(driver.state == .running)
        try finish()
    }

    @Test func powerButtonRaisesTheSystemControlInterrupt() throws {
        let enabled = guestDoes([.portWrite(port: 0x602, width: .word, count: 1)], values: [1 << 8]) {
            machine.board.ports.read(0x602, width: .word) == 1 << 8
        }
        #expect(enabled)
        try driver.perform(.pressPowerButton)
        #expect(accelerator.lines.withLock { $0[9] } == true)
        try finish()
    }
}

/// Polls until `condition` holds, at most ten seconds.
func eventually(_ condition: () -> Bool) -> Bool {
    let deadline = SystemClock.monotonicNanoseconds + 10_000_000_000
    while SystemClock.monotonicNanoseconds < deadline {
        if condition() { return true }
        sched_yield()
    }
    return condition()
}
