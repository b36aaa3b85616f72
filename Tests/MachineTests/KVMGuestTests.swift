import Chipset
import Glibc
import GuestMemory
import HostSystem
import KVM
import MachineConfiguration
import MachineCore
import MachineTesting
import MonitorProtocol
import Synchronization
import Testing

@testable import Machine

/// A machine on KVM running a few bytes of machine code, driven by the test.
private struct CodeGuest {
    static let start: UInt64 = 0x1000
    let output = CapturedOutput()
    let machine: GuestMachine
    /// The devices'.
    private let loop: LoopThread
    let driver: StateDriver
    let notices = Monitor<[MachineNotice]>([])

    init(
        _ code: [UInt8], mode: BootRegisters.Mode = .real, vcpus: Int = 1, data: [UInt64: [UInt8]] = [:],
        _ change: (inout GuestConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = GuestConfiguration(
            name: "test", uuid: .zero, memoryMiB: 2, cpu: CPUConfiguration(count: vcpus), kernel: -1, rng: true)
        change(&configuration)
        let devices = try LoopThread()
        loop = devices
        machine = try GuestMachine(
            configuration, accelerator: try KVMSystem.open().makeVirtualMachine(), output: output, loop: devices.loop
        ) { board in
            try board.memory.write(code, at: GuestAddress(Self.start))
            for (address, bytes) in data { try board.memory.write(bytes, at: GuestAddress(address)) }
            return BootRegisters(mode: mode, rip: Self.start, rsp: 0x8000)
        }
        driver = StateDriver(machine, requests: machine.requests, policies: MachinePolicies()) { [notices] notice in
            notices.update { $0.append(notice) }
        }
    }

    func run(until condition: () -> Bool) throws -> Bool {
        if !driver.state.executes { try driver.perform(.resume) }
        return eventually {
            driver.serveGuestRequests()
            return condition()
        }
    }

    func byte(at address: UInt64) -> UInt8 {
        (try? machine.board.memory.load(UInt8.self, at: GuestAddress(address))) ?? 0
    }
    func end() throws { try driver.perform(.quit) }
}

extension GuestTests {
    @Suite struct KVMGuestTests {
        /// hlt; jmp back to it.
        private let rest: [UInt8] = [0xF4, 0xEB, 0xFD]
        /// inc byte [0x1300]; jmp back to it.
        private let counting: [UInt8] = [0xFE, 0x06, 0x00, 0x13, 0xEB, 0xFA]

        @Test func outputToThePortArrivesByteByByte() throws {
            // mov dx, 3F8h; mov al, 'A'; out dx, al; mov al, 'B'; out dx, al
            let guest = try CodeGuest([0xBA, 0xF8, 0x03, 0xB0, 0x41, 0xEE, 0xB0, 0x42, 0xEE] + rest)
            #expect(try guest.run { guest.output.text == "AB" }, "\(guest.output.text)")
            try guest.end()
        }

        @Test func repeatedStringOutputArrivesWholeAndInOrder() throws {
            // cld; mov si, 1100h; mov cx, 5; mov dx, 3F8h; rep outsb
            let code: [UInt8] = [0xFC, 0xBE, 0x00, 0x11, 0xB9, 0x05, 0x00, 0xBA, 0xF8, 0x03, 0xF3, 0x6E]
            let guest = try CodeGuest(code + rest, data: [0x1100: Array("hello".utf8)])
            #expect(try guest.run { guest.output.text == "hello" }, "\(guest.output.text)")
            try guest.end()
        }

        @Test func repeatedStringInputFillsMemory() throws {
            // cld; mov di, 1400h; mov cx, 3; mov dx, 1234h (nobody's); rep insw; mov byte [1300h], 1
            let code: [UInt8] = [
                0xFC, 0xBF, 0x00, 0x14, 0xB9, 0x03, 0x00, 0xBA, 0x34, 0x12, 0xF3, 0x6D, 0xC6, 0x06, 0x00, 0x13, 0x01,
            ]
            let guest = try CodeGuest(code + rest)
            #expect(try guest.run { guest.byte(at: 0x1300) == 1 })
            #expect(
                try guest.machine.board.memory.bytes(at: GuestAddress(0x1400), count: 7) == [
                    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0,
                ])
            try guest.end()
        }

        @Test func memoryMappedReadGetsTheDevicesAnswer() throws {
            // mov eax, [B0000000h] (configuration space of 0:0.0); mov [1300h], eax; mov byte [1304h], 1
            let code: [UInt8] = [0xA1, 0, 0, 0, 0xB0, 0xA3, 0x00, 0x13, 0, 0, 0xC6, 0x05, 0x04, 0x13, 0, 0, 0x01]
            let guest = try CodeGuest(code + rest, mode: .protected32)
            #expect(try guest.run { guest.byte(at: 0x1304) == 1 })
            let identity: UInt32 = try guest.machine.board.memory.load(at: GuestAddress(0x1300))
            #expect(
                UInt64(identity) == guest.machine.board.addresses.read(GuestAddress(0xB000_0000), byteCount: 4)
                    && identity != .max)
            try guest.end()
        }

        @Test func tripleFaultResetsTheMachineAndItStartsAgain() throws {
            // mov dx, 3F8h; mov al, 'R'; out dx, al; lidt [1200h] (limit 0); int3
            let code: [UInt8] = [0xBA, 0xF8, 0x03, 0xB0, 0x52, 0xEE, 0x0F, 0x01, 0x1E, 0x00, 0x12, 0xCC]
            let guest = try CodeGuest(code + rest, data: [0x1200: [0, 0, 0, 0, 0, 0]])
            #expect(
                try guest.run { guest.output.text.count >= 5 }, "\(guest.output.text) \(guest.notices.update { $0 })")
            #expect(
                guest.notices.update { $0 }.contains(.reset(way: "triple fault", byGuest: true))
                    && guest.driver.state == .running)
            try guest.end()
        }

        @Test func codeWhereNoMemoryIsBecomesAnInternalErrorNotAnAbort() throws {
            // jmp C0000000h
            let target = UInt32(0xC000_0000) &- UInt32(CodeGuest.start + 5)
            let code: [UInt8] = [0xE9] + (0..<4).map { UInt8(truncatingIfNeeded: target >> ($0 * 8)) }
            let guest = try CodeGuest(code, mode: .protected32)
            #expect(try guest.run { guest.driver.state == .internalError }, "\(guest.driver.state)")
            #expect(guest.driver.breakdown?.contains("emulate") == true, "\(guest.driver.breakdown ?? "")")
            try guest.end()
        }

        @Test func pausedProcessorStandsStillAndGoesOnWhereItWas() throws {
            let guest = try CodeGuest(counting)
            #expect(try guest.run { guest.byte(at: 0x1300) != 0 })
            for _ in 0..<20 {
                try guest.driver.perform(.pause)
                let before = guest.byte(at: 0x1300)
                usleep(2000)
                #expect(guest.byte(at: 0x1300) == before)
                try guest.driver.perform(.resume)
                #expect(eventually { guest.byte(at: 0x1300) != before })
            }
            try guest.end()
        }

        @Test func haltedProcessorsCanBePausedAndQuit() throws {
            let guest = try CodeGuest(rest, vcpus: 2)
            #expect(try guest.run { guest.machine.processors.firstEntryNanoseconds != 0 })
            try guest.driver.perform(.pause)
            try guest.driver.perform(.resume)
            try guest.end()
            #expect(guest.driver.state == .ended)
        }

        /// Counts interrupt 0 at 0x1300; the PIT's channel 0 ticks each 3.4 ms.
        private static let ticking: [UInt8] = [
            0xB0, 0x11, 0xE6, 0x20, 0xB0, 0x08, 0xE6, 0x21, 0xB0, 0x04, 0xE6, 0x21, 0xB0, 0x01, 0xE6, 0x21,  // PIC: vectors from 8
            0xB0, 0xFE, 0xE6, 0x21,  // interrupt 0 alone
            0xB0, 0x34, 0xE6, 0x43, 0xB0, 0x00, 0xE6, 0x40, 0xB0, 0x10, 0xE6, 0x40,  // mode 2, count 0x1000
            0xFB,  // sti
        ]
        /// inc byte [1300h]; push ax; mov al, 20h; out 20h, al; pop ax; iret
        private static let tick: [UInt8] = [0xFE, 0x06, 0x00, 0x13, 0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF]

        @Test func theHPETTakesThePITsInterruptAndGivesItBack() throws {
            let guest = try CodeGuest(Self.ticking + rest, data: [0x1100: Self.tick, 8 * 4: [0x00, 0x11, 0, 0]]) { $0.board.hpet = true }
            func ticks(within seconds: UInt64) -> Bool {
                let before = guest.byte(at: 0x1300)
                return MonitorProcess.within(seconds: seconds) { guest.byte(at: 0x1300) != before }
            }
            #expect(try guest.run { guest.byte(at: 0x1300) > 3 })
            let addresses = guest.machine.board.addresses
            func set(_ offset: UInt64, _ value: UInt64) { addresses.write(GuestAddress(0xFED0_0000 + offset), byteCount: 8, value: value) }
            set(0x10, 2)
            usleep(50_000)
            #expect(!ticks(within: 1), "the PIT still interrupts")
            // Periodic, edge, each 5 ms.
            set(0x100, 1 << 2 | 1 << 3 | 1 << 6)
            set(0x108, 500_000)
            set(0x10, 3)
            #expect(ticks(within: 5) && ticks(within: 5))
            set(0x10, 0)
            #expect(ticks(within: 5) && ticks(within: 5), "the PIT does not come back")
            try guest.end()
        }

        @Test func savedGuestGoesOnInAnotherMachine() throws {
            // mov dx, 3F8h; mov al, 'S'; out dx, al; mov cl, 7; then inc byte [1300h]; mov [1302h], cl; jmp to inc
            let code: [UInt8] = [
                0xBA, 0xF8, 0x03, 0xB0, 0x53, 0xEE, 0xB1, 0x07, 0xFE, 0x06, 0x00, 0x13, 0x88, 0x0E, 0x02, 0x13, 0xEB,
                0xF6,
            ]
            let guest = try CodeGuest(code)
            #expect(try guest.run { guest.output.text == "S" && guest.byte(at: 0x1302) == 7 })
            try guest.driver.perform(.pause)
            let file = try makeMemoryFile(named: "state", byteCount: 0)
            _ = try guest.machine.collectState().write(to: file.rawValue)
            let other = try CodeGuest(rest)
            try other.driver.perform(.pause)
            try other.machine.restore(try other.machine.openState(file.rawValue), isFresh: true, began: SystemClock.monotonicNanoseconds)
            try other.machine.board.memory.store(UInt8(0), at: GuestAddress(0x1302))
            let stoodAt = other.byte(at: 0x1300)
            // It goes on in the loop, with its registers, and does not begin again.
            #expect(try other.run { other.byte(at: 0x1300) != stoodAt && other.byte(at: 0x1302) == 7 })
            #expect(other.output.text == "" && other.machine.restoreNanoseconds != nil)
            try other.end()
            try guest.end()
        }

        @Test func processorsSavedStateRestoresToItself() throws {
            let guest = try CodeGuest(counting)
            #expect(try guest.run { guest.byte(at: 0x1300) != 0 })
            try guest.driver.perform(.pause)
            let vcpu = try #require(guest.machine.processors.vcpus.first)
            let state = try vcpu.saveState()
            try vcpu.restoreState(state, at: .savedState)
            #expect(try vcpu.saveState().count == state.count)
            #expect(throws: AcceleratorError.self) { try vcpu.restoreState(Array(state.dropLast(20)), at: .savedState) }
            #expect(throws: AcceleratorError.self) { try vcpu.restoreState([9, 9, 9, 9] + state.dropFirst(4), at: .savedState) }
            try guest.end()
        }
    }
}
