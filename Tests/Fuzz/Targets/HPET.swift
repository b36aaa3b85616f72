// The HPET, with time that passes.
import Chipset

let hpetTarget = FuzzTarget("hpet", 1024) { input in
    drive(&input) {
        let rig = Rig()
        let hpet = EventTimerBlock(clock: Bench.clock, timer: Bench.clock.makeTimer()) { _ in Bench.line }
        rig.add(hpet, byteCount: 0x180)
        rig.sections = [hpet]
        rig.reset = { hpet.reset() }
        rig.actions = [{ Bench.clock.advance(&$0) }]
        return rig
    }
}
