// ACPI power management in its three shapes, the SMI command port and the reset ports.
import Chipset

let powerTarget = FuzzTarget("power", 512) { input in
    drive(&input) {
        let rig = Rig()
        let registers = PowerManagement(clock: Bench.clock, sci: Bench.line, power: FuzzPower(), timer: Bench.clock.makeTimer())
        let command = SMICommandPort(registers)
        rig.add(registers, byteCount: 0x40)
        rig.add(ICH9PowerBlock(registers), byteCount: 0x80)
        rig.add(PIIX4EventBlock(registers), byteCount: 4)
        rig.add(command, byteCount: 2)
        for kind: ResetPort.Kind in [.systemControl, .resetControl] { rig.add(ResetPort(kind, power: FuzzPower()), byteCount: 1) }
        rig.sections = [registers, command]
        rig.reset = {
            registers.reset()
            command.reset()
        }
        rig.actions = [
            { Bench.clock.advance(&$0) },
            { _ in registers.pressPowerButton() },
            { registers.raiseGeneralPurposeEvent(Int($0.byte())) },
        ]
        return rig
    }
}
