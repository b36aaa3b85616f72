import Chipset
import MachineCore
import Testing

struct KeyboardControllerTests {
    private let wire = Wire(), supply = Supply()
    private func controller() -> KeyboardController { KeyboardController(power: supply, line: wire) }
    private func command(_ device: KeyboardController, _ value: UInt64) { device.write(offset: 4, width: .byte, value: value) }
    private func data(_ device: KeyboardController, _ value: UInt64) { device.write(offset: 0, width: .byte, value: value) }
    private func data(_ device: KeyboardController) -> UInt64 { device.read(offset: 0, width: .byte) }
    private func status(_ device: KeyboardController) -> UInt64 { device.read(offset: 4, width: .byte) }

    @Test(arguments: [(UInt64(0xAA), UInt64(0x55)), (0xAB, 0x00), (0xA9, 0x04), (0xC0, 0x80), (0xD0, 0x03)])
    func commandWithAnAnswerFillsTheOutputUntilItIsRead(value: UInt64, answer: UInt64) {
        let device = controller()
        command(device, value)
        #expect(status(device) & 0x09 == 0x09, "output full, last write was a command")
        #expect(data(device) == answer && status(device) & 0x01 == 0)
    }

    @Test func selfTestSetsTheSystemFlag() {
        let device = controller()
        #expect(status(device) & 0x04 == 0)
        command(device, 0xAA)
        #expect(status(device) & 0x04 == 0x04)
    }

    @Test func commandByteIsWrittenAndReadBackWithTheAuxiliaryPortDisabled() {
        let device = controller()
        command(device, 0x60)
        data(device, 0x47)
        command(device, 0x20)
        #expect(data(device) == 0x67)
        command(device, 0xA8)
        command(device, 0x20)
        #expect(data(device) & 0x20 == 0x20, "enabling a port that is not there changes nothing")
    }

    @Test func loopedByteComesBackAsTheKeyboardsAndInterruptsWhereEnabled() {
        let device = controller()
        command(device, 0x60)
        data(device, 0x01)
        command(device, 0xD3)
        data(device, 0x5A)
        #expect(wire.level && status(device) & 0x21 == 0x01, "without the auxiliary bit a driver sees that there is no such port")
        #expect(data(device) == 0x5A && !wire.level)
    }

    @Test func byteForTheAbsentKeyboardTimesOut() {
        let device = controller()
        data(device, 0xF2)
        #expect(status(device) & 0x41 == 0x41)
        #expect(data(device) == 0xFE && status(device) & 0x41 == 0)
    }

    @Test func onlyPulsesOfTheResetLineReset() {
        let device = controller()
        for value: UInt64 in [0xFF, 0xFD, 0xF1, 0xAA, 0x00] { command(device, value) }
        #expect(supply.asked.isEmpty)
        command(device, 0xFE)
        #expect(supply.asked == ["reset by i8042"])
        command(device, 0xD1)
        data(device, 0x03)
        #expect(supply.asked.count == 1)
        command(device, 0xD1)
        data(device, 0x02)
        #expect(supply.asked.count == 2, "bit 0 of the output port is the reset line")
    }

    @Test func a20IsKeptInTheOutputPort() {
        let device = controller()
        command(device, 0xDD)
        command(device, 0xD0)
        #expect(data(device) == 0x01)
        command(device, 0xDF)
        command(device, 0xD0)
        #expect(data(device) == 0x03)
    }

    @Test func stateSurvivesARoundTripAndATruncatedOneIsRefused() throws {
        let device = controller()
        command(device, 0x60)
        data(device, 0x45)
        command(device, 0xAA)
        command(device, 0xD1)
        let saved = savedBytes(device), other = Wire(), otherSupply = Supply()
        let copy = KeyboardController(power: otherSupply, line: other)
        #expect(try restore(saved, into: copy) == 0)
        #expect(other.level && savedBytes(copy) == saved)
        data(copy, 0x00)
        #expect(otherSupply.asked == ["reset by i8042"], "the command that waited for its data still did")
        for count in 0..<saved.count { #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: copy) } }
    }

    @Test func everyCommandIsAnsweredOrIgnored() {
        let device = controller()
        for value in UInt64(0)...255 {
            command(device, value)
            data(device, value)
            _ = data(device)
        }
        #expect(device.read(offset: 2, width: .byte) == 0xFF)
    }
}
