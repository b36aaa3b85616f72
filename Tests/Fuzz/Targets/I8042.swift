// The keyboard controller with both its devices, and a user at them.
import Chipset

let i8042Target = FuzzTarget("i8042") { input in
    drive(&input) {
        let rig = Rig()
        let keyboard = KeyboardController(power: FuzzPower(), line: Bench.line, auxiliaryLine: Bench.line, hasKeyboardAndMouse: true)
        rig.add(keyboard, byteCount: 5)
        rig.sections = [keyboard]
        rig.reset = { keyboard.reset() }
        rig.actions = [
            { _ = keyboard.press(KeyCode(rawValue: $0.byte())) },
            { keyboard.release(KeyCode(rawValue: $0.byte())) },
            {
                keyboard.move(
                    dx: Int($0.number(Int16.self)), dy: Int($0.number(Int16.self)), wheel: Int($0.number(Int8.self)),
                    buttons: MouseButtons(rawValue: $0.byte()))
            },
        ]
        return rig
    }
}
