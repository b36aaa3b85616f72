// The interval timer with port B, with time that passes.
import Chipset

let pitTarget = FuzzTarget("pit", 1024) { input in
    drive(&input) {
        let rig = Rig()
        let pit = IntervalTimer(clock: Bench.clock, timer: Bench.clock.makeTimer(), line: Bench.line)
        rig.add(pit, byteCount: 4)
        rig.add(pit.portB, byteCount: 1)
        rig.sections = [pit]
        rig.reset = { pit.reset() }
        rig.actions = [{ Bench.clock.advance(&$0) }, { pit.setReplaced($0.byte() & 1 != 0) }]
        return rig
    }
}
