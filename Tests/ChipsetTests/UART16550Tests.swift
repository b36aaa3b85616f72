import Chipset
import MachineCore
import Testing

/// Register numbers and bits written out again, apart from the chip's own names.
private let data: UInt8 = 0, ier: UInt8 = 1, iir: UInt8 = 2, fcr: UInt8 = 2, lcr: UInt8 = 3, mcr: UInt8 = 4, lsr: UInt8 = 5

struct UART16550Tests {
    @Test func writtenByteLeavesAndTransmitterStaysReady() {
        var chip = UART16550()
        #expect(chip.write(data, 0x41) == 0x41)
        #expect(chip.read(lsr) & 0x60 == 0x60)
    }

    @Test func divisorLatchHidesDataAndKeepsTheDivisor() {
        var chip = UART16550()
        _ = chip.write(lcr, 0x80)
        #expect(chip.write(data, 0x0C) == nil)
        #expect(chip.write(ier, 0x01) == nil)
        #expect(chip.read(data) == 0x0C && chip.read(ier) == 0x01)
        _ = chip.write(lcr, 0x03)
        #expect(chip.read(ier) == 0)
    }

    @Test func receivedByteInterruptsUntilItIsRead() {
        var chip = UART16550()
        _ = chip.write(mcr, 0x08)
        _ = chip.write(ier, 0x01)
        #expect(!chip.isInterrupting)
        chip.receive(0x5A)
        #expect(chip.isInterrupting && chip.read(iir) & 0x0F == 0x04 && chip.read(lsr) & 1 == 1)
        #expect(chip.read(data) == 0x5A)
        #expect(!chip.isInterrupting && chip.read(lsr) & 1 == 0)
    }

    @Test func interruptIsGatedByOUT2() {
        var chip = UART16550()
        _ = chip.write(ier, 0x01)
        chip.receive(1)
        #expect(!chip.isInterrupting)
        _ = chip.write(mcr, 0x08)
        #expect(chip.isInterrupting)
    }

    @Test func emptyTransmitterInterruptIsRaisedByEnablingAndAcknowledgedByIIR() {
        var chip = UART16550()
        _ = chip.write(mcr, 0x08)
        _ = chip.write(ier, 0x02)
        #expect(chip.isInterrupting && chip.read(iir) & 0x0F == 0x02)
        #expect(!chip.isInterrupting && chip.read(iir) & 0x0F == 0x01)
    }

    @Test func lineStatusComesBeforeData() {
        var chip = UART16550()
        _ = chip.write(fcr, 0x01)
        _ = chip.write(ier, 0x05)
        for byte in UInt8(0)..<17 { chip.receive(byte) }
        #expect(chip.read(iir) == 0xC6, "seventeen bytes into sixteen places overrun")
        #expect(chip.read(lsr) & 0x02 == 0x02)
        #expect(chip.read(lsr) & 0x02 == 0, "reading the line status clears the overrun")
        #expect((0..<16).map { _ in chip.read(data) } == Array(0..<16))
    }

    @Test func loopbackBringsBytesAndModemLinesBack() {
        var chip = UART16550()
        _ = chip.write(mcr, 0x1B)
        #expect(chip.write(data, 0x77) == nil)
        #expect(chip.read(data) == 0x77)
        #expect(chip.read(6) & 0xF0 == 0xB0, "DTR, RTS and OUT2 as DSR, CTS and DCD")
    }

    @Test func stateSurvivesARoundTripAndATruncatedOneIsRefused() throws {
        var chip = UART16550()
        for (register, value) in [(fcr, UInt8(1)), (ier, 3), (mcr, 0x0B), (7, 0x99), (lcr, 3)] { _ = chip.write(register, value) }
        chip.receive(0x10)
        chip.receive(0x20)
        var writer = StateWriter()
        chip.save(into: &writer)
        var copy = UART16550()
        var reader = StateReader(section: "uart", bytes: writer.bytes)
        try copy.restore(from: &reader)
        #expect(copy == chip && reader.remaining == 0)
        for count in 0..<writer.bytes.count {
            var cut = StateReader(section: "uart", bytes: Array(writer.bytes[..<count]))
            #expect(throws: DeviceStateError.self) { try copy.restore(from: &cut) }
        }
    }

    @Test(arguments: [(UInt8(0x01), 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
    func bytesBelowTheTriggerLevelAreATimeoutAndFromItOnReceivedData(control: UInt8, level: Int) {
        var chip = UART16550()
        _ = chip.write(fcr, control)
        _ = chip.write(ier, 0x01)
        for _ in 1..<level {
            chip.receive(0x20)
            #expect(chip.read(iir) == 0xCC)
        }
        chip.receive(0x20)
        #expect(chip.read(iir) == 0xC4)
    }

    @Test func withoutFIFOsOneByteIsHeldAndIdentificationSaysSo() {
        var chip = UART16550()
        _ = chip.write(ier, 0x01)
        chip.receive(1)
        #expect(chip.receiveSpace == 0 && chip.read(iir) == 0x04)
        _ = chip.write(fcr, 0xC6)
        #expect(chip.read(iir) == 0x04, "without bit 0 the FIFO control is not programmed")
        #expect(chip.read(data) == 1)
    }

    @Test func switchingTheFIFOsOnOrClearingThemEmptiesTheReceiver() {
        var chip = UART16550()
        chip.receive(1)
        _ = chip.write(fcr, 0x01)
        #expect(chip.read(lsr) & 1 == 0)
        chip.receive(2)
        _ = chip.write(fcr, 0x01)
        #expect(chip.read(lsr) & 1 == 1)
        _ = chip.write(fcr, 0x03)
        #expect(chip.read(lsr) & 1 == 0)
    }

    @Test func changedModemLinesInterruptLastAndReadingTheStatusClearsThem() {
        var chip = UART16550()
        _ = chip.write(ier, 0x0A)
        _ = chip.write(mcr, 0x10)
        #expect(chip.read(iir) == 0x02, "the transmitter comes first")
        #expect(chip.read(iir) == 0x00)
        #expect(chip.read(6) == 0x0B, "CTS, DSR and DCD fell, and say that they changed")
        #expect(chip.read(iir) == 0x01 && chip.read(6) == 0)
        _ = chip.write(mcr, 0x14)
        #expect(chip.read(6) == 0x40, "a ring that begins is no change")
        _ = chip.write(mcr, 0x10)
        #expect(chip.read(6) == 0x04, "its end is")
    }

    @Test func linuxProbeOfLoopbackSeesRTSAndOUT2() {
        var chip = UART16550()
        _ = chip.write(mcr, 0x1A)
        #expect(chip.read(6) & 0xF0 == 0x90)
    }

    @Test func stateOfVersion1IsStillRead() throws {
        var writer = StateWriter()
        UART16550().save(into: &writer)
        var reader = StateReader(section: "uart", bytes: Array(writer.bytes.dropLast()))
        var chip = UART16550()
        try chip.restore(from: &reader, version: 1)
        #expect(reader.remaining == 0 && chip == UART16550())
    }
}
