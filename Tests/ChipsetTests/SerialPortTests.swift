import Chipset
import MachineCore
import Synchronization
import Testing

struct SerialPortTests {
    private let wire = Wire(), sink = Sink()
    private func port() -> SerialPort { SerialPort(name: "uart@3f8", line: wire, output: sink) }

    @Test func writtenBytesReachTheOutputInOrder() {
        let port = port()
        for byte in Array("boot".utf8) { port.write(offset: 0, width: .byte, value: UInt64(byte)) }
        #expect(sink.bytes == Array("boot".utf8))
    }

    @Test func receiverTakesWhatFitsAndTellsWhenThereIsRoomAgain() {
        let port = port()
        let told = Mutex(0)
        port.onReceiveSpace { told.withLock { $0 += 1 } }
        port.write(offset: 2, width: .byte, value: 0x01)
        #expect(port.receive(Array(0..<20)) == 16)
        #expect(told.withLock { $0 } == 0)
        #expect(port.read(offset: 0, width: .byte) == 0)
        #expect(told.withLock { $0 } == 1)
        #expect(port.receive([16]) == 1)
        #expect((0..<16).map { _ in port.read(offset: 0, width: .byte) } == Array(1...16))
        #expect(told.withLock { $0 } == 1, "nobody was refused since")
    }

    @Test func interruptLineFollowsTheChip() {
        let port = port()
        port.write(offset: 4, width: .byte, value: 0x08)
        port.write(offset: 1, width: .byte, value: 0x01)
        _ = port.receive([0x41])
        #expect(wire.level && wire.edges == 1)
        _ = port.read(offset: 0, width: .byte)
        #expect(!wire.level)
    }

    @Test func resetEmptiesThePortAndDropsItsInterrupt() {
        let port = port()
        port.write(offset: 4, width: .byte, value: 0x08)
        port.write(offset: 1, width: .byte, value: 0x02)
        #expect(wire.level)
        port.reset()
        #expect(!wire.level && port.read(offset: 1, width: .byte) == 0)
    }

    @Test func restoredPortAssertsTheLineThatWasAsserted() throws {
        let port = port()
        port.write(offset: 4, width: .byte, value: 0x08)
        port.write(offset: 1, width: .byte, value: 0x01)
        _ = port.receive([0x41])
        let other = Wire()
        let copy = SerialPort(name: "uart@3f8", line: other, output: sink)
        #expect(try restore(savedBytes(port), into: copy) == 0)
        #expect(other.level && copy.read(offset: 0, width: .byte) == 0x41 && !other.level)
    }

    @Test func wideAccessesAreAnsweredWithOnesAndIgnored() {
        let port = port()
        port.write(offset: 0, width: .word, value: 0x4141)
        #expect(sink.bytes.isEmpty && port.read(offset: 0, width: .doubleWord) == 0xFFFF_FFFF)
    }
}
