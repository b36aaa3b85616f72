import Chipset
import MachineCore
import Synchronization
import Testing

final class Journal: Sendable {
    private let list = Mutex<[String]>([])
    var lines: [String] { list.withLock { $0 } }
    func note(_ line: String) { list.withLock { $0.append(line) } }
}

struct DebugPortTests {
    /// SeaBIOS, src/fw/paravirt.c and src/hw/serialio.c: it writes where a read gives 0xE9.
    @Test func consoleShowsItsSignatureAndPassesBytesOn() {
        let sink = Sink(), console = DebugConsole(output: sink)
        #expect(console.read(offset: 0, width: .byte) == 0xE9)
        for byte in Array("ok\n".utf8) { console.write(offset: 0, width: .byte, value: UInt64(byte)) }
        console.write(offset: 0, width: .doubleWord, value: 0x0102_0304)
        #expect(sink.bytes == Array("ok\n".utf8) + [4, 3, 2, 1])
    }

    @Test(arguments: [(UInt64(0), "1"), (1, "3"), (0x31, "99"), (0xFFFF_FFFF, "4294967295")])
    func exitCodeIsOddWhateverIsWritten(value: UInt64, code: String) {
        let journal = Journal(), port = DebugExit { journal.note("\($0)") }
        port.write(offset: 0, width: .doubleWord, value: value)
        port.write(offset: 1, width: .byte, value: 7)
        #expect(journal.lines == [code])
    }

    /// Linux, drivers/misc/pvpanic: the capabilities are read, an event is written.
    @Test func panicIsReportedAndOthersAreNot() {
        let journal = Journal(),
            port = PanicPort(understood: [.panicked, .crashLoaded]) { journal.note("\($0.rawValue)") }
        #expect(port.read(offset: 0, width: .byte) == 3 && port.read(offset: 1, width: .byte) == 0xFF)
        port.write(offset: 0, width: .byte, value: 1)
        port.write(offset: 0, width: .byte, value: 0xFE)
        port.write(offset: 0, width: .byte, value: 4)
        port.write(offset: 1, width: .byte, value: 1)
        #expect(journal.lines == ["1", "2"])
    }

    @Test func powerCommandsAreToldAndKept() throws {
        let wire = Wire(), journal = Journal()
        let block = PowerManagement(clock: HandClock(), sci: wire, power: Supply())
        let port = SMICommandPort(block) { journal.note("\($0)") }
        port.write(offset: 1, width: .byte, value: 0x55)
        port.write(offset: 0, width: .byte, value: 0x02)
        #expect(block.read(offset: 4, width: .word) & 1 == 1 && port.read(offset: 0, width: .word) == 0x5502)
        port.write(offset: 0, width: .word, value: 0x7703)
        port.write(offset: 9, width: .byte, value: 1)
        #expect(block.read(offset: 4, width: .word) & 1 == 0 && journal.lines == ["2", "3"])
        let copy = SMICommandPort(block)
        #expect(try restore(savedBytes(port), into: copy) == 0 && copy.read(offset: 0, width: .word) == 0x7703)
        #expect(throws: DeviceStateError.self) { try restore([1], into: copy) }
        copy.reset()
        #expect(copy.read(offset: 0, width: .word) == 0)
    }
}

struct GenerationIdentifierTests {
    private let text = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"

    @Test func firstFieldsOfTheGUIDAreLittleEndian() {
        let bytes: [UInt8] = [
            0xAF, 0x6E, 0x4E, 0x32, 0xD1, 0xD1, 0xF6, 0x4B, 0xBF, 0x41, 0xB9, 0xBB, 0x6C, 0x91, 0xFB, 0x87,
        ]
        #expect(GenerationID(text)?.bytes == bytes && GenerationID(text.uppercased())?.bytes == bytes)
        for wrong in [
            "", "324e6eaf", text + "0", String(text.dropLast()), text.replacing("-", with: "0"),
            text.replacing("f", with: "g"),
        ] {
            #expect(GenerationID(wrong) == nil)
        }
    }

    @Test func changeIsToldOnceAndStandsInThePage() throws {
        let journal = Journal(), first = GenerationID(low: 1, high: 2), second = GenerationID(low: 3, high: 4)
        let device = GenerationIdentifier(first)
        device.onChange { journal.note("\($0.low)") }
        device.set(first)
        device.set(second)
        #expect(journal.lines == ["3"] && device.page.count == 4096)
        #expect(Array(device.page[40..<56]) == second.bytes && device.page[..<40].allSatisfy { $0 == 0 })
        let saved = savedBytes(device), copy = GenerationIdentifier(first)
        #expect(try restore(saved, into: copy) == 0 && copy.value == second)
        #expect(throws: DeviceStateError.self) { try restore(Array(saved.dropLast()), into: copy) }
    }
}
