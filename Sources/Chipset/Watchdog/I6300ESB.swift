// The watchdog of Intel's 6300ESB I/O hub (data sheet 300641, chapter 16): two stages, each with a preload of 20 bits,
// the first may interrupt, the second resets the machine. Registers lie in configuration space (0x60, 0x68) and in a
// BAR of 16 bytes. Time is handed in; who wires it to PCI passes both kinds of accesses on.

package struct I6300ESB: Sendable, Equatable {
    package static let vendorID: UInt16 = 0x8086, deviceID: UInt16 = 0x25AB
    package static let byteCount: UInt64 = 16

    /// Offsets in configuration space.
    package enum ConfigurationOffset {
        package static let configuration = 0x60, lock = 0x68
    }
    enum Offset {
        static let preload1: UInt64 = 0x00, preload2: UInt64 = 0x04, interruptStatus: UInt64 = 0x08,
            reload: UInt64 = 0x0C
    }
    enum Configuration {
        /// WDT_INT_TYPE: 0 an interrupt, 2 SMI, 3 none. WDT_PRE_SEL: 1 is 1 us a tick. WDT_OUTPUT: 1 is no reset.
        static let interruptType: UInt16 = 0x03, fastClock: UInt16 = 0x04, outputDisabled: UInt16 = 0x20
        static let writable = interruptType | fastClock | outputDisabled
    }
    enum Lock {
        /// WDT_LOCK, WDT_ENABLE, WDT_TOUT_CNF (1: free-running, the second stage tells nobody).
        static let locked: UInt8 = 0x01, enabled: UInt8 = 0x02, freeRunning: UInt8 = 0x04
        static let writable = locked | enabled | freeRunning
    }
    enum Reload {
        static let reload: UInt16 = 0x0100, timeout: UInt16 = 0x0200
        /// Written one after the other they open the preloads and the reload for one write.
        static let unlock1: UInt8 = 0x80, unlock2: UInt8 = 0x86
    }
    /// What a stage's end asks for.
    package enum Expiry: Sendable, Equatable { case interrupt, smi, reset }
    enum Stage: UInt8, Sendable { case stopped, first, second }

    /// The PCI clock, which the prescaler divides by 2^15 or 2^5.
    private static let hertz: UInt64 = 33_000_000
    private static let preloadMask: UInt32 = 0x000F_FFFF

    var configuration: UInt16 = 0
    var lock: UInt8 = 0
    var preload1 = preloadMask, preload2 = preloadMask
    /// A stage has ended whose interrupt is on; the line follows it.
    var interruptStatus = false
    /// The second stage reset the machine: survives that reset.
    package internal(set) var hasTimedOut = false
    var unlockStep: UInt8 = 0
    var stage = Stage.stopped
    /// When the stage ends, in nanoseconds.
    var end: UInt64 = 0

    package init() {}

    /// The interrupt line, where it is the way chosen.
    package var isInterrupting: Bool { interruptStatus && configuration & Configuration.interruptType == 0 }

    /// A reset of the machine or of its bus.
    package mutating func reset() {
        let timedOut = hasTimedOut
        self = I6300ESB()
        hasTimedOut = timedOut
    }

    // MARK: Time

    private func length(of preload: UInt32) -> UInt64 {
        let ticks = UInt64(preload) << (configuration & Configuration.fastClock != 0 ? 5 : 15)
        // Preload n counts n + 1 clocks; at most 35 bits, so that the product fits.
        return (ticks + 1) * 1_000 / (Self.hertz / 1_000_000)
    }

    private mutating func begin(_ stage: Stage, at now: UInt64) {
        self.stage = stage
        end = now &+ length(of: stage == .second ? preload2 : preload1)
    }

    /// When `advance` is next needed, in nanoseconds; nil: not at all.
    package var nextDeadline: UInt64? { stage == .stopped ? nil : end }

    /// Ends the stage that is over at `now`, nanoseconds of a clock that does not go back. One stage a call: the second
    /// begins when the host has told of the first.
    package mutating func advance(to now: UInt64) -> Expiry? {
        guard stage != .stopped, now >= end else { return nil }
        if stage == .first {
            begin(.second, at: now)
            interruptStatus = true
            switch configuration & Configuration.interruptType {
            case 0: return .interrupt
            case 2: return .smi
            default: return nil
            }
        }
        if lock & Lock.freeRunning != 0 {
            begin(.first, at: now)
            return nil
        }
        stage = .stopped
        guard configuration & Configuration.outputDisabled == 0 else { return nil }
        hasTimedOut = true
        return .reset
    }

    // MARK: Configuration space

    /// The byte at `offset` of configuration space; nil: not this chip's.
    package func readConfiguration(_ offset: Int) -> UInt8? {
        switch offset {
        case ConfigurationOffset.configuration: UInt8(truncatingIfNeeded: configuration)
        case ConfigurationOffset.configuration + 1: UInt8(truncatingIfNeeded: configuration >> 8)
        case ConfigurationOffset.lock: lock
        default: nil
        }
    }

    package mutating func writeConfiguration(_ offset: Int, _ value: UInt8, at now: UInt64) {
        switch offset {
        case ConfigurationOffset.configuration: configuration = UInt16(value) & Configuration.writable
        case ConfigurationOffset.lock:
            guard lock & Lock.locked == 0 else { return }
            let wasEnabled = lock & Lock.enabled != 0
            lock = value & Lock.writable
            if lock & Lock.enabled == 0 { stage = .stopped } else if !wasEnabled { begin(.first, at: now) }
        default: break
        }
    }

    // MARK: Memory

    package func read(_ offset: UInt64) -> UInt32 {
        switch offset {
        case Offset.interruptStatus: interruptStatus ? 1 : 0
        case Offset.reload: hasTimedOut ? UInt32(Reload.timeout) : 0
        default: 0
        }
    }

    package mutating func write(_ offset: UInt64, _ value: UInt32, at now: UInt64) {
        if offset == Offset.interruptStatus {
            if value & 1 != 0 { interruptStatus = false }
            return
        }
        if offset == Offset.reload, unlockStep < 2 {
            switch (unlockStep, UInt8(truncatingIfNeeded: value)) {
            case (_, Reload.unlock1): unlockStep = 1
            case (1, Reload.unlock2): unlockStep = 2
            default: unlockStep = 0
            }
            return
        }
        guard unlockStep == 2 else { return }
        unlockStep = 0
        switch offset {
        case Offset.preload1: preload1 = value & Self.preloadMask
        case Offset.preload2: preload2 = value & Self.preloadMask
        case Offset.reload:
            if value & UInt32(Reload.timeout) != 0 { hasTimedOut = false }
            if value & UInt32(Reload.reload) != 0, lock & Lock.enabled != 0 { begin(.first, at: now) }
        default: break
        }
    }
}
