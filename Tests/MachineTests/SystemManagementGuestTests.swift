import Chipset
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import Testing

@testable import Machine

extension GuestTests {
    /// System management interrupts of a real processor: its state is saved at SMBASE + 0xFE00, its handler begins at SMBASE + 0x8000 in a
    /// kind of real mode (Intel SDM volume 3, "System Management Mode"), and SMBASE is 0x30000 first.
    @Suite struct SystemManagementGuestTests {
        private static let handler: UInt64 = 0x3_8000, otherHandler: UInt64 = 0x4_8000
        /// In the last megabyte of 64 MiB: TSEG of any size.
        private static let segment: UInt64 = 0x3FF_0000
        /// hlt; jmp back to it.
        private static let rest: [UInt8] = [0xF4, 0xEB, 0xFD]
        /// mov al, 55h; out B2h, al
        private static let command: [UInt8] = [0xB0, 0x55, 0xE6, 0xB2]
        /// inc byte [1300h]
        private static let count: [UInt8] = [0xFE, 0x06, 0x00, 0x13]
        private static let resume: [UInt8] = [0x0F, 0xAA]

        /// A Q35 board as firmware leaves it: power management at 0x600, commands make SMIs, a megabyte of TSEG closed.
        private func guest(_ code: [UInt8], vcpus: Int = 1, _ data: [UInt64: [UInt8]]) throws -> CodeGuest {
            let guest = try CodeGuest(code, mode: .protected32, vcpus: vcpus, data: data) {
                ($0.type, $0.memoryMiB, $0.board.smm, $0.rng) = (.q35, 64, true, false)
            }
            func configure(_ function: UInt64, _ offset: UInt64, _ value: UInt64, _ width: AccessWidth) {
                guest.machine.board.ports.write(0xCF8, width: .doubleWord, value: 0x8000_0000 | function << 8 | offset & 0xFC)
                guest.machine.board.ports.write(0xCFC + UInt16(offset & 3), width: width, value: value)
            }
            configure(0xF8, 0x40, 0x600, .doubleWord)
            configure(0xF8, 0x44, 0x80, .byte)
            guest.machine.board.ports.write(0x630, width: .doubleWord, value: 0x21)
            configure(0, 0x9D, 0x08, .byte)
            configure(0, 0x9E, 0x01, .byte)
            return guest
        }

        @Test func aCommandRunsTheHandlerWhoseMemoryNobodyElseSees() throws {
            // Then mov al, [segment]; mov [1301h], al; mov byte [segment], 77h; mov byte [1302h], 1
            let code: [UInt8] =
                Self.command + [0xA0, 0x00, 0x00, 0xFF, 0x03, 0xA2, 0x01, 0x13, 0x00, 0x00, 0xC6, 0x05, 0x00, 0x00, 0xFF, 0x03, 0x77]
                + [0xC6, 0x05, 0x02, 0x13, 0x00, 0x00, 0x01]
            // mov byte [segment], 5Ah, by a 32-bit address
            let handler = Self.count + [0x67, 0xC6, 0x05, 0x00, 0x00, 0xFF, 0x03, 0x5A] + Self.resume
            let guest = try guest(code + Self.rest, [Self.handler: handler])
            #expect(try guest.run { guest.byte(at: 0x1302) == 1 }, "\(guest.driver.state) \(guest.byte(at: 0x1300))")
            #expect(guest.byte(at: 0x1300) == 1 && guest.byte(at: 0x1301) == 0xFF)
            let memory = guest.machine.board.memory
            #expect(throws: GuestMemoryFault.self) { try memory.load(UInt8.self, at: GuestAddress(Self.segment)) }
            try guest.driver.perform(.pause)
            memory.conceal(nil, nil)
            #expect(try memory.load(UInt8.self, at: GuestAddress(Self.segment)) == 0x5A)
            try guest.end()
        }

        @Test func anAgreementOnBroadcastInterruptsEveryProcessor() throws {
            // The first command interrupts its writer alone, whose handler moves SMBASE to 0x40000 (saved at FF00h).
            let handler = Self.count + [0x67, 0x66, 0xC7, 0x05, 0x00, 0xFF, 0x03, 0x00, 0x00, 0x00, 0x04, 0x00] + Self.resume
            // inc byte [1306h]
            let other: [UInt8] = [0xFE, 0x06, 0x06, 0x13] + Self.resume
            // Then INIT and a start-up at 2000h for all others; wait for [1304h], then for [1305h]; command; mov byte [1302h], 1
            let code: [UInt8] =
                Self.command
                + [0xC7, 0x05, 0x00, 0x03, 0xE0, 0xFE, 0x00, 0x45, 0x0C, 0x00, 0xC7, 0x05, 0x00, 0x03, 0xE0, 0xFE, 0x02, 0x46, 0x0C, 0x00]
                + [0x80, 0x3D, 0x04, 0x13, 0x00, 0x00, 0x00, 0x74, 0xF7, 0x80, 0x3D, 0x05, 0x13, 0x00, 0x00, 0x00, 0x74, 0xF7]
                + Self.command + [0xC6, 0x05, 0x02, 0x13, 0x00, 0x00, 0x01]
            // inc byte [1304h]
            let second: [UInt8] = [0xFE, 0x06, 0x04, 0x13] + Self.rest
            let guest = try guest(code + Self.rest, vcpus: 2, [Self.handler: handler, Self.otherHandler: other, 0x2000: second])
            #expect(try guest.run { guest.byte(at: 0x1304) == 1 }, "\(guest.driver.state) \(guest.byte(at: 0x1300))")
            #expect(guest.byte(at: 0x1300) == 1)
            let management = try #require(guest.machine.board.management)
            management.requestFeatures([1, 0, 0, 0, 0, 0, 0, 0])
            #expect(management.agreeOnFeatures() == 1)
            try guest.machine.board.memory.store(UInt8(1), at: GuestAddress(0x1305))
            #expect(try guest.run { guest.byte(at: 0x1302) == 1 && guest.byte(at: 0x1300) == 2 }, "\(guest.byte(at: 0x1300)) \(guest.byte(at: 0x1306))")
            #expect(guest.byte(at: 0x1306) == 1)
            try guest.end()
        }

        @Test func aGuestSavedInItsHandlerGoesOnThere() throws {
            // wait for [1308h]
            let handler = Self.count + [0x80, 0x3E, 0x08, 0x13, 0x00, 0x74, 0xF9] + [0x67, 0xC6, 0x05, 0x00, 0x00, 0xFF, 0x03, 0x5A] + Self.resume
            let code = Self.command + [0xC6, 0x05, 0x02, 0x13, 0x00, 0x00, 0x01] + Self.rest
            let guest = try guest(code, [Self.handler: handler])
            #expect(try guest.run { guest.byte(at: 0x1300) == 1 })
            try guest.driver.perform(.pause)
            let file = try guest.machine.saveState()
            let restored = try self.guest(Self.rest, [:])
            try restored.driver.perform(.pause)
            try restored.machine.restoreState(file)
            try restored.machine.board.memory.store(UInt8(1), at: GuestAddress(0x1308))
            #expect(try restored.run { restored.byte(at: 0x1302) == 1 }, "\(restored.driver.state)")
            #expect(restored.byte(at: 0x1300) == 1)
            #expect(throws: GuestMemoryFault.self) { try restored.machine.board.memory.load(UInt8.self, at: GuestAddress(Self.segment)) }
            // The first one is where it was.
            #expect(guest.byte(at: 0x1302) == 0)
            try restored.end()
            try guest.end()
        }
    }
}
