// The 6300ESB watchdog, its configuration bytes and its registers, with time that passes.
import Chipset
import MachineCore

let watchdogTarget = FuzzTarget("i6300esb", 512) { input in
    drive(&input) {
        let rig = Rig()
        let watchdog = WatchdogTimer(clock: Bench.clock, timer: Bench.clock.makeTimer(), line: Bench.line) { _ in }
        rig.add(watchdog, byteCount: 16)
        rig.sections = [watchdog]
        rig.reset = { watchdog.reset() }
        rig.actions = [
            { Bench.clock.advance(&$0) },
            { watchdog.writeConfiguration(0x60 + Int($0.byte() & 15), $0.byte()) },
            { _ = watchdog.readConfiguration(Int($0.byte())) },
            {
                // The two writes that unlock the next one.
                watchdog.write(offset: 12, width: .word, value: 0x80)
                watchdog.write(offset: 12, width: .word, value: 0x86)
                watchdog.write(offset: UInt64($0.byte() & 12), width: .doubleWord, value: UInt64($0.number(UInt32.self)))
            },
        ]
        return rig
    }
}
