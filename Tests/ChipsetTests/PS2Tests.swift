// The keyboard controller with its devices, as firmware and drivers go through it. Byte values are the specifications',
// not the chip's own names.
import Chipset
import MachineCore
import Testing

/// Plays the part of a driver: its wait-write-read steps, checked for the source of each byte.
private final class Bench {
    let wire = Wire(), auxiliaryWire = Wire(), supply = Supply()
    let device: KeyboardController
    init() {
        device = KeyboardController(power: supply, line: wire, auxiliaryLine: auxiliaryWire, hasKeyboardAndMouse: true)
    }
    var status: UInt8 { UInt8(device.read(offset: 4, width: .byte)) }
    func command(_ value: UInt8) { device.write(offset: 4, width: .byte, value: UInt64(value)) }
    func data(_ value: UInt8) { device.write(offset: 0, width: .byte, value: UInt64(value)) }
    func read() -> UInt8 { UInt8(device.read(offset: 0, width: .byte)) }
    func ask(_ value: UInt8) -> UInt8 {
        command(value)
        #expect(status & 0x21 == 0x01)
        return read()
    }
    /// Every byte waiting, with 0x100 added to those of the mouse.
    func drain() -> [Int] {
        var bytes: [Int] = []
        while status & 1 != 0, bytes.count < 200 {
            let source = status & 0x20 == 0 ? 0 : 0x100
            bytes.append(source + Int(read()))
        }
        return bytes
    }
    func setCommandByte(_ value: UInt8) {
        command(0x60)
        data(value)
    }
    /// To the keyboard; its whole answer.
    func keyboard(_ bytes: UInt8...) -> [Int] {
        bytes.flatMap { byte in
            data(byte)
            return drain()
        }
    }
    func mouse(_ bytes: UInt8...) -> [Int] {
        bytes.flatMap { byte in
            command(0xD4)
            data(byte)
            return drain().map { $0 - 0x100 }
        }
    }
    /// Keyboard with translation, mouse reporting, both interrupts on.
    func start() {
        setCommandByte(0x47)
        _ = keyboard(0xF4)
        _ = mouse(0xF4)
    }
    func type(_ key: KeyCode) {
        device.press(key)
        device.release(key)
    }
}

struct PS2Tests {
    /// SeaBIOS, src/hw/ps2port.c, ps2_keyboard_setup and __ps2_command.
    @Test func firmwareSetsUpTheKeyboardAndReadsAKey() {
        let bench = Bench()
        #expect(bench.status & 1 == 0)
        bench.command(0xAD)
        bench.command(0xA7)
        #expect(bench.ask(0xAA) == 0x55)
        #expect(bench.ask(0xAB) == 0x00)
        func deviceCommand(_ bytes: [UInt8], answer: [Int], after commandByte: UInt8) {
            bench.setCommandByte(0x30)
            bench.setCommandByte(0x20)
            for (index, byte) in bytes.enumerated() {
                bench.data(byte)
                #expect(bench.status & 0x21 == 0x01 && bench.read() == 0xFA, "byte \(index)")
            }
            #expect(bench.drain() == answer)
            bench.setCommandByte(commandByte)
        }
        deviceCommand([0xFF], answer: [0xAA], after: 0x30)
        deviceCommand([0xF5], answer: [], after: 0x30)
        deviceCommand([0xF0, 0x02], answer: [], after: 0x30)
        deviceCommand([0xF4], answer: [], after: 0x61)
        bench.device.press(.enter)
        #expect(bench.wire.level && !bench.auxiliaryWire.level)
        #expect(bench.read() == 0x1C && !bench.wire.level)
        bench.device.release(.enter)
        #expect(bench.read() == 0x9C)
    }

    /// Linux, drivers/input/serio/i8042.c, i8042_check_aux and i8042_check_mux.
    @Test func driverFindsTheAuxiliaryPortAndNoMultiplexer() {
        let bench = Bench()
        bench.setCommandByte(0x54)
        func loop(_ value: UInt8) -> Int? {
            bench.command(0xD3)
            bench.data(value)
            return bench.drain().first
        }
        #expect(loop(0x5A) == 0x15A)
        bench.command(0xA7)
        #expect(bench.ask(0x20) & 0x20 == 0x20)
        bench.command(0xA8)
        #expect(bench.ask(0x20) & 0x20 == 0)
        bench.setCommandByte(0x56)
        bench.command(0xD3)
        bench.data(0xA5)
        #expect(bench.auxiliaryWire.level && bench.status & 0x21 == 0x21 && !bench.wire.level)
        #expect(bench.read() == 0xA5 && !bench.auxiliaryWire.level)
        #expect(loop(0xF0) == 0x1F0 && loop(0x56) == 0x156)
        #expect(loop(0xA4) == 0x1A4, "a multiplexer would answer its version instead")
        #expect(bench.ask(0xA9) == 0x00)
    }

    /// Linux, drivers/input/keyboard/atkbd.c, atkbd_probe, atkbd_select_set and atkbd_activate.
    @Test func driverIdentifiesTheKeyboard() {
        let bench = Bench()
        bench.setCommandByte(0x25)
        #expect(bench.keyboard(0xF2) == [0xFA, 0xAB, 0x83])
        #expect(bench.keyboard(0xF5) == [0xFA])
        #expect(bench.keyboard(0xED, 0x05) == [0xFA, 0xFA] && bench.device.indicators == 5)
        #expect(bench.keyboard(0xF3, 0x00) == [0xFA, 0xFA])
        #expect(bench.keyboard(0xEE) == [0xEE])
        #expect(bench.keyboard(0xF0, 0x00) == [0xFA, 0xFA, 0x02])
        #expect(bench.keyboard(0xF0, 0x03) == [0xFA, 0xFE], "there is no set 3")
        #expect(bench.keyboard(0xE1) == [0xFE])
        #expect(bench.keyboard(0xF6) == [0xFA])
        #expect(bench.keyboard(0xFF) == [0xFA, 0xAA])
        #expect(bench.keyboard(0xFE) == [0xAA])
        bench.setCommandByte(0x65)
        #expect(bench.keyboard(0xF2) == [0xFA, 0xAB, 0x41], "answers are translated too")
        #expect(bench.keyboard(0xED, 0xF4) == [0xFA, 0xFA], "a command in place of a parameter is a command")
        #expect(bench.device.indicators == 0)
    }

    /// Linux, drivers/input/mouse/psmouse-base.c: psmouse_probe, intellimouse_detect, im_explorer_detect.
    @Test func driverFindsTheWheelAndFiveButtons() {
        let bench = Bench()
        bench.setCommandByte(0x47)
        #expect(bench.mouse(0xF2) == [0xFA, 0x00])
        #expect(bench.mouse(0xF6) == [0xFA])
        #expect(bench.mouse(0xFF) == [0xFA, 0xAA, 0x00])
        for rate: UInt8 in [200, 100, 80] { #expect(bench.mouse(0xF3, rate) == [0xFA, 0xFA]) }
        #expect(bench.mouse(0xF2) == [0xFA, 0x03])
        for rate: UInt8 in [200, 200, 80] { _ = bench.mouse(0xF3, rate) }
        #expect(bench.mouse(0xF2) == [0xFA, 0x04])
        #expect(bench.mouse(0xE8, 0x03, 0xE7, 0xF4) == [0xFA, 0xFA, 0xFA, 0xFA])
        #expect(bench.mouse(0xE9) == [0xFA, 0x30, 0x03, 80])
        #expect(bench.mouse(0xFF) == [0xFA, 0xAA, 0x00] && bench.mouse(0xF2) == [0xFA, 0x00])
        #expect(bench.mouse(0xE1) == [0xFE], "no stick")
    }

    @Test(
        arguments: [
            (KeyCode(rawValue: 0x1E), [0x1C, 0xF0, 0x1C], [0x1E, 0x9E]),
            (.init(rawValue: 0x41), [0x83, 0xF0, 0x83], [0x41, 0xC1]),
            (.init(rawValue: 0x57), [0x78, 0xF0, 0x78], [0x57, 0xD7]),
            (.rightControl, [0xE0, 0x14, 0xE0, 0xF0, 0x14], [0xE0, 0x1D, 0xE0, 0x9D]),
            (.left, [0xE0, 0x6B, 0xE0, 0xF0, 0x6B], [0xE0, 0x4B, 0xE0, 0xCB]),
            (.leftMeta, [0xE0, 0x1F, 0xE0, 0xF0, 0x1F], [0xE0, 0x5B, 0xE0, 0xDB]),
            (
                .printScreen, [0xE0, 0x12, 0xE0, 0x7C, 0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12],
                [0xE0, 0x2A, 0xE0, 0x37, 0xE0, 0xB7, 0xE0, 0xAA]
            ),
            (.pause, [0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77], [0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]),
        ] as [(KeyCode, [Int], [Int])])
    func keySendsItsCodes(key: KeyCode, setTwo: [Int], setOne: [Int]) {
        for (commandByte, set, expected) in [(UInt8(0x05), UInt8(2), setTwo), (0x45, 2, setOne), (0x05, 1, setOne)] {
            let bench = Bench()
            bench.setCommandByte(commandByte)
            _ = bench.keyboard(0xF0, set)
            bench.device.press(key)
            let pressed = bench.drain()
            bench.device.release(key)
            #expect(pressed + bench.drain() == expected)
        }
    }

    /// Linux, synaptics_detect and genius_detect: numbers sent in resolutions, and an answer to the status that ours is
    /// not.
    @Test func driverFindsNoTouchPadBehindTheMouse() {
        let bench = Bench()
        bench.setCommandByte(0x47)
        for _ in 0..<4 { #expect(bench.mouse(0xE8, 0x00) == [0xFA, 0xFA]) }
        #expect(bench.mouse(0xE9) == [0xFA, 0x00, 0x00, 100], "a Synaptics would answer 0x47 in the middle")
        #expect(bench.mouse(0xE8, 0x03, 0xE6, 0xE6, 0xE6) == [0xFA, 0xFA, 0xFA, 0xFA, 0xFA])
        #expect(bench.mouse(0xE9) == [0xFA, 0x00, 0x03, 100], "a Genius would answer 0x00 0x33 0x55")
        for rate: UInt8 in [10, 0, 10, 20, 60, 40, 20] { _ = bench.mouse(0xF3, rate) }
        #expect(bench.mouse(0xF2) == [0xFA, 0x00], "no ThinkingMouse")
    }

    @Test func printScreenAndPauseDependOnTheModifiersHeld() {
        let bench = Bench()
        bench.start()
        bench.device.press(.leftAlt)
        _ = bench.drain()
        bench.type(.printScreen)
        #expect(bench.drain() == [0x54, 0xD4])
        bench.device.release(.leftAlt)
        bench.device.press(.rightControl)
        _ = bench.drain()
        bench.type(.pause)
        bench.type(.printScreen)
        #expect(bench.drain() == [0xE0, 0x46, 0xE0, 0xC6, 0xE0, 0x37, 0xE0, 0xB7])
    }

    @Test func everyKeyOfAKeyboardTranslatesBackToItself() {
        let bench = Bench()
        bench.start()
        for code in UInt8(0x01)...0x58 where code != 0x54 + 1 && code != 0x37 {
            bench.type(KeyCode(rawValue: code))
            #expect(bench.drain() == [Int(code), Int(code) | 0x80], "scan code \(code)")
        }
        #expect(KeyCode(evdev: 28) == .enter && KeyCode(evdev: 103) == .up && KeyCode(evdev: 119) == .pause)
        #expect(KeyCode(evdev: 84) == nil && KeyCode(evdev: 0) == nil && KeyCode(evdev: 0x110) == nil)
    }

    @Test func eachByteIsAnEdgeAndWaitsWhileItsPortIsDisabled() {
        let bench = Bench()
        bench.start()
        let edges = bench.wire.edges
        bench.type(.up)
        #expect(bench.drain() == [0xE0, 0x48, 0xE0, 0xC8] && bench.wire.edges == edges + 4)
        bench.command(0xAD)
        bench.type(.enter)
        #expect(bench.status & 1 == 0)
        #expect(bench.ask(0x20) == 0x57, "an answer of the controller comes before keys that wait")
        bench.command(0xAE)
        #expect(bench.drain() == [0x1C, 0x9C])
        bench.command(0xA7)
        bench.device.move(dx: 1, dy: 0, buttons: [])
        #expect(bench.status & 1 == 0)
        bench.command(0xA8)
        #expect(bench.auxiliaryWire.level && bench.drain().count == 3)
    }

    @Test func answerOfTheControllerDoesNotOverwriteAKeyInTheRegister() {
        let bench = Bench()
        bench.start()
        bench.device.press(.enter)
        bench.command(0x20)
        #expect(bench.drain() == [0x1C, 0x47])
    }

    @Test func fullKeyboardLosesWholeKeysAndLeavesNoneDown() {
        let bench = Bench()
        bench.setCommandByte(0x05)
        #expect(bench.device.press(.leftShift))
        #expect(bench.device.press(.right) && bench.device.press(.up) && bench.device.press(.down))
        for _ in 0..<20 { bench.device.press(.left) }
        #expect(!bench.device.press(.pause), "eight bytes do not fit any more")
        for key: KeyCode in [.left, .right, .up, .down, .leftShift, .pause] { bench.device.release(key) }
        var down: Set<[Int]> = [], prefix: [Int] = [], count = 0
        var isBreak = false
        for byte in bench.drain() {
            count += 1
            switch byte {
            case 0xE0: prefix = [0xE0]
            case 0xF0: isBreak = true
            default:
                if isBreak { down.remove(prefix + [byte]) } else { down.insert(prefix + [byte]) }
                prefix = []
                isBreak = false
            }
        }
        #expect(down.isEmpty && count > 15)
        bench.command(0xAD)
        for _ in 0..<20 { bench.type(.enter) }
        bench.command(0xAE)
        #expect(bench.drain().count < 16, "a driver that flushes sees the end before its sixteenth byte")
    }

    @Test func mouseReportsMovementSignsAndOverflowInNineBits() {
        let bench = Bench()
        bench.start()
        bench.device.move(dx: 5, dy: 3, buttons: .left)
        #expect(bench.auxiliaryWire.level && bench.drain() == [0x129, 0x105, 0x1FD], "down on the screen is negative")
        bench.device.move(dx: -300, dy: -2, buttons: [.right, .middle])
        #expect(
            bench.drain() == [0x11E, 0x101, 0x102, 0x11E, 0x1D3, 0x100], "what does not fit follows: -255, then -45")
        bench.device.move(dx: 0, dy: 0, buttons: [.right, .middle])
        #expect(bench.drain().isEmpty, "nothing changed")
        bench.device.move(dx: 0, dy: 0, wheel: 1, buttons: [.right, .middle])
        #expect(bench.drain().isEmpty, "a mouse without a wheel does not tell of one")
    }

    @Test func wheelAndFurtherButtonsAreInTheFourthByte() {
        let bench = Bench()
        bench.start()
        for rate: UInt8 in [200, 100, 80] { _ = bench.mouse(0xF3, rate) }
        bench.device.move(dx: 0, dy: 0, wheel: 2, buttons: [])
        #expect(bench.drain() == [0x108, 0x100, 0x100, 0x1FE])
        for rate: UInt8 in [200, 200, 80] { _ = bench.mouse(0xF3, rate) }
        bench.device.move(dx: 0, dy: 0, wheel: -9, buttons: [.side, .extra])
        #expect(bench.drain() == [0x108, 0x100, 0x100, 0x137, 0x108, 0x100, 0x100, 0x132])
    }

    @Test func movementIsAddedUpAndClicksAreKeptApart() {
        let bench = Bench()
        bench.start()
        for _ in 0..<10 { bench.device.move(dx: 1, dy: -1, buttons: []) }
        bench.device.move(dx: 0, dy: 0, buttons: .left)
        bench.device.move(dx: 0, dy: 0, buttons: [])
        let bytes = bench.drain().map { $0 & 0xFF }
        let reports = stride(from: 0, to: bytes.count - 2, by: 3).map { Array(bytes[$0..<($0 + 3)]) }
        #expect(bytes.count % 3 == 0 && reports.reduce(0) { $0 + $1[1] } == 10)
        #expect(reports.map { $0[0] & 7 } == [0, 0, 1, 0])
        for _ in 0..<1000 { bench.device.move(dx: .max, dy: .min, buttons: []) }
        #expect(bench.drain().count > 3)
    }

    @Test func remoteAndWrapModeAreObeyed() {
        let bench = Bench()
        bench.setCommandByte(0x47)
        #expect(bench.mouse(0xF0) == [0xFA])
        bench.device.move(dx: 4, dy: 0, buttons: .left)
        #expect(bench.status & 1 == 0)
        #expect(bench.mouse(0xEB) == [0xFA, 0x09, 0x04, 0x00])
        #expect(bench.mouse(0xE9) == [0xFA, 0x44, 0x02, 100])
        #expect(bench.mouse(0xEA) == [0xFA])
        #expect(bench.mouse(0xEE) == [0xFA] && bench.mouse(0xF2) == [0xF2] && bench.mouse(0xEC) == [0xFA])
        #expect(bench.mouse(0xF2) == [0xFA, 0x00])
    }

    @Test func scalingSlowsSmallMovementsAndDoublesLargeOnes() {
        let bench = Bench()
        bench.start()
        _ = bench.mouse(0xE7)
        for (count, sent) in [(1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (127, 254)] {
            bench.device.move(dx: count, dy: 0, buttons: [])
            #expect(bench.drain() == [0x108, 0x100 + sent, 0x100])
        }
    }

    @Test func resetEmptiesTheQueuesAndKeepsTheDevices() {
        let bench = Bench()
        bench.start()
        bench.device.press(.enter)
        bench.device.reset()
        #expect(bench.status == 0x10 && !bench.wire.level && bench.drain().isEmpty)
        bench.start()
        bench.device.press(.tab)
        #expect(bench.drain() == [0x0F])
    }

    @Test func unpluggedInputIsLost() {
        let device = KeyboardController(power: Supply())
        #expect(!device.press(.enter) && device.indicators == nil)
        device.release(.enter)
        device.move(dx: 1, dy: 1, buttons: .left)
        #expect(device.read(offset: 4, width: .byte) & 1 == 0)
    }

    @Test func stateSurvivesARoundTripAndATruncatedOneIsRefused() throws {
        let bench = Bench(), copy = Bench()
        bench.start()
        for rate: UInt8 in [200, 100, 80] { _ = bench.mouse(0xF3, rate) }
        bench.device.press(.up)
        bench.device.press(.leftShift)
        bench.device.move(dx: 500, dy: -7, wheel: 1, buttons: [.left])
        bench.command(0x20)
        bench.command(0xD4)
        let saved = savedBytes(bench.device)
        #expect(try restore(saved, into: copy.device) == 0)
        #expect(savedBytes(copy.device) == saved && copy.wire.level)
        copy.data(0xF2)
        bench.data(0xF2)
        copy.device.release(.leftShift)
        bench.device.release(.leftShift)
        let rest = bench.drain()
        #expect(copy.drain() == rest && rest.count > 12)
        for count in 0..<saved.count {
            #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: copy.device) }
        }
        #expect(throws: DeviceStateError.self) { try restore(saved, into: KeyboardController(power: Supply())) }
    }

    @Test func stateOfVersionOneIsStillRead() throws {
        let wire = Wire(), device = KeyboardController(power: Supply(), line: wire)
        // Command byte, output port, last was command, nothing pending, 0xFE in the register, timed out.
        let saved: [UInt8] = [0x65, 0x03, 0x01, 0xFF, 0xFF, 0xFE, 0x00, 0x01]
        #expect(try restore(saved, into: device, version: 1) == 0)
        #expect(
            wire.level && device.read(offset: 4, width: .byte) == 0x5D && device.read(offset: 0, width: .byte) == 0xFE)
        #expect(try restore(saved, into: Bench().device, version: 1) == 0)
    }

    @Test(arguments: UInt64(1)...8)
    func randomAccessesAndInputLeaveTheQueuesBoundedAndBothDevicesUsable(seed: UInt64) throws {
        var random = Seeded(seed)
        let bench = Bench()
        for _ in 0..<4000 {
            switch random.next() % 8 {
            case 0: bench.command(UInt8(truncatingIfNeeded: random.next()))
            case 1: bench.data(UInt8(truncatingIfNeeded: random.next()))
            case 2: bench.command(0xD4)
            case 3: _ = bench.read()
            case 4: bench.device.press(KeyCode(rawValue: UInt8(truncatingIfNeeded: random.next())))
            case 5: bench.device.release(KeyCode(rawValue: UInt8(truncatingIfNeeded: random.next())))
            case 6:
                bench.device.move(
                    dx: Int(truncatingIfNeeded: random.next()), dy: Int(random.next() % 9) - 4,
                    wheel: Int(random.next() % 5) - 2,
                    buttons: MouseButtons(rawValue: UInt8(random.next() % 32)))
            default:
                let status = bench.status
                #expect(!bench.wire.level || status & 0x21 == 0x01)
                #expect(!bench.auxiliaryWire.level || status & 0x21 == 0x21)
            }
        }
        _ = try restore(savedBytes(bench.device), into: Bench().device)
        bench.setCommandByte(0x30)
        _ = bench.drain()
        _ = bench.mouse(0xFF)
        #expect(bench.mouse(0xF2) == [0xFA, 0x00])
        bench.setCommandByte(0x20)
        _ = bench.drain()
        _ = bench.keyboard(0xFF)
        #expect(bench.keyboard(0xF2) == [0xFA, 0xAB, 0x83])
        var state = savedBytes(bench.device)
        for index in state.indices where random.next() % 4 == 0 {
            state[index] = UInt8(truncatingIfNeeded: random.next())
        }
        _ = try? restore(state, into: bench.device)
        bench.device.move(dx: .max, dy: .min, wheel: .max, buttons: .left)
        for _ in 0..<50 { _ = bench.read() }
    }
}
