import Chipset
import Glibc
import HostSystem
import MachineCore
import MachineTesting
import Synchronization
import Testing

@testable import Machine

/// The time of a machine that stops and goes on.
struct BoardClockTests {
    private let thread: LoopThread
    private let clock = BoardClock()
    init() throws { thread = try LoopThread() }

    @Test func noTimePassesAndNoTimerFiresWhileTheMachineStandsStill() throws {
        let timer = try clock.makeTimer(on: thread.loop), firings = Mutex(0)
        timer.onExpiry { firings.withLock { $0 += 1 } }
        clock.start()
        clock.stop()
        let moment = clock.nanoseconds
        timer.set(to: moment + 1_000_000)
        usleep(30_000)
        #expect(clock.nanoseconds == moment && firings.withLock { $0 } == 0)
        clock.start()
        #expect(eventually { firings.withLock { $0 } == 1 } && clock.nanoseconds > moment)
    }

    @Test func watchdogOfAMachineThatStandsStillDoesNotExpire() throws {
        let expiries = Mutex<[I6300ESB.Expiry]>([])
        let watchdog = WatchdogTimer(clock: clock, timer: try clock.makeTimer(on: thread.loop)) { expiry in expiries.withLock { $0.append(expiry) } }
        clock.start()
        // No interrupt, ticks of 32 clocks of 33 MHz, both stages 4 ms long; then enabled.
        watchdog.writeConfiguration(0x60, 0x07)
        for (offset, value) in [(UInt64(0x00), UInt64(0x1000)), (0x04, 0x1000)] {
            watchdog.write(offset: 0x0C, width: .word, value: 0x80)
            watchdog.write(offset: 0x0C, width: .word, value: 0x86)
            watchdog.write(offset: offset, width: .doubleWord, value: value)
        }
        clock.stop()
        watchdog.writeConfiguration(0x68, 0x02)
        usleep(50_000)
        #expect(expiries.withLock { $0 }.isEmpty)
        clock.start()
        #expect(eventually { expiries.withLock { $0 } == [.reset] })
    }
}
