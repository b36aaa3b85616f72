// The real-time clock, with time that passes.
import Chipset

let rtcTarget = FuzzTarget("rtc", 512) { input in
    drive(&input) {
        let rig = Rig()
        let rtc = CMOSClock(clock: Bench.clock, line: Bench.line, timer: Bench.clock.makeTimer())
        rig.add(rtc, byteCount: 2)
        rig.sections = [rtc]
        rig.reset = { rtc.reset() }
        rig.actions = [{ Bench.clock.advance(&$0) }]
        return rig
    }
}
