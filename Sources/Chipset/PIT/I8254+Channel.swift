// One channel of the 8254: what its counter and OUT are, as functions of the ticks since it was loaded.

extension I8254 {
    struct Channel: Sendable, Equatable {
        /// 0 to 5; which bytes of the count are transferred: 1 low, 2 high, 3 both in turn.
        var mode: UInt8 = 0, access: UInt8 = 3
        var isBCD = false
        var gate: Bool
        /// Ticks, 1 to 65536.
        var count: UInt64 = 65536
        /// A count that replaces it at the end of the period (modes 2, 3) or at the next trigger (1, 5).
        var nextCount: UInt64?
        /// The counter was loaded and runs, or would but for its gate.
        var isRunning = false
        /// When it was loaded; with `held` set it stands that many ticks later.
        var start: UInt64 = 0
        var held: UInt64?
        var lowByte: UInt8?
        var latchedCount: UInt16?, latchedStatus: UInt8?
        /// The high byte is read next.
        var readsHigh = false

        init(gate: Bool) { self.gate = gate }

        var isPeriodic: Bool { mode == 2 || mode == 3 }
        private var isTriggered: Bool { mode == 1 || mode == 5 }
        private var modulus: UInt64 { isBCD ? 10_000 : 65_536 }

        private func elapsed(at tick: UInt64) -> UInt64 { held ?? tick &- start }

        // MARK: Counter and OUT

        func output(at tick: UInt64) -> Bool {
            guard isRunning else { return mode != 0 }
            let elapsed = elapsed(at: tick)
            switch mode {
            case 0, 1: return elapsed >= count
            case 2: return held != nil || count == 1 || elapsed % count != count - 1
            case 3: return held != nil || elapsed % count < (count + 1) / 2
            default: return elapsed != count
            }
        }

        private func value(at tick: UInt64) -> UInt16 {
            let ticks = isRunning ? elapsed(at: tick) : 0
            let value =
                switch mode {
                case 2: count - ticks % count
                case 3: count - (ticks % count * 2) % count
                default: (count + modulus - ticks % modulus) % modulus
                }
            return isBCD ? Self.decimal(value % 10_000) : UInt16(truncatingIfNeeded: value)
        }

        private static func decimal(_ value: UInt64) -> UInt16 {
            UInt16(
                truncatingIfNeeded: (value / 1000) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | value % 10
            )
        }

        /// Takes over the next count where its period has begun.
        mutating func settle(at tick: UInt64) {
            guard isRunning, isPeriodic, held == nil, let nextCount, tick &- start >= count else { return }
            start = start &+ (tick &- start) / count * count
            count = nextCount
            self.nextCount = nil
        }

        /// How often OUT rises after `from` until `to`.
        mutating func rises(from: UInt64, to: UInt64) -> UInt64 {
            guard isRunning, held == nil else { return 0 }
            let before = from &- start, after = to &- start
            guard isPeriodic else {
                let rise = mode >= 4 ? count + 1 : count
                return before < rise && rise <= after ? 1 : 0
            }
            guard nextCount != nil else { return after / count - before / count }
            let end = (before / count + 1) * count
            guard after >= end else { return 0 }
            let boundary = start &+ end
            settle(at: boundary)
            return 1 + (to &- boundary) / count
        }

        func nextRise(after tick: UInt64) -> UInt64? {
            guard isRunning, held == nil else { return nil }
            let elapsed = tick &- start
            if isPeriodic { return start &+ (elapsed / count + 1) * count }
            let rise = mode >= 4 ? count + 1 : count
            return elapsed < rise ? start &+ rise : nil
        }

        // MARK: Gate

        mutating func setGate(_ isHigh: Bool, at tick: UInt64) {
            settle(at: tick)
            guard isHigh != gate else { return }
            gate = isHigh
            switch (mode, isHigh) {
            case (1, true), (5, true):
                guard nextCount != nil || isRunning else { return }
                load(at: tick)
                isRunning = true
            case (2, true), (3, true): load(at: tick)
            // Modes 0 and 4 go on where they stood.
            case (0, true), (4, true):
                if let held { start = tick &- held }
                held = nil
            case (1, false), (5, false): break
            case (_, false): held = isRunning ? tick &- start : nil
            default: break
            }
        }

        private mutating func load(at tick: UInt64) {
            if let nextCount { count = nextCount }
            nextCount = nil
            start = tick
            held = gate || isTriggered ? nil : 0
        }

        // MARK: Registers

        mutating func setControl(_ value: UInt8) {
            let selected = value >> 1 & 7
            // 6 and 7 are other names of 2 and 3.
            mode = selected > 5 ? selected & 3 : selected
            access = value >> 4 & 3
            isBCD = value & 1 != 0
            isRunning = false
            nextCount = nil
            held = nil
            lowByte = nil
            latchedCount = nil
            latchedStatus = nil
            readsHigh = false
        }

        mutating func write(_ byte: UInt8, at tick: UInt64) {
            settle(at: tick)
            switch access {
            case 1: setCount(UInt16(byte), at: tick)
            case 2: setCount(UInt16(byte) << 8, at: tick)
            default:
                guard let low = lowByte else {
                    lowByte = byte
                    // In mode 0 the first byte stops the counter.
                    if mode == 0 { isRunning = false }
                    return
                }
                lowByte = nil
                setCount(UInt16(byte) << 8 | UInt16(low), at: tick)
            }
        }

        private mutating func setCount(_ value: UInt16, at tick: UInt64) {
            let number = isBCD ? Self.binary(value) : UInt64(value)
            nextCount = number == 0 ? modulus : number
            if isTriggered || isPeriodic && isRunning { return }
            load(at: tick)
            isRunning = true
        }

        /// Digits above 9, which the guest should not write, count as they would add up.
        private static func binary(_ value: UInt16) -> UInt64 {
            let digits = UInt64(value)
            return ((digits >> 12) * 1000 + (digits >> 8 & 15) * 100 + (digits >> 4 & 15) * 10 + (digits & 15)) % 10_000
        }

        mutating func latchCount(at tick: UInt64) {
            settle(at: tick)
            // A latch stays until it is read.
            if latchedCount == nil { latchedCount = value(at: tick) }
        }

        mutating func latchStatus(at tick: UInt64) {
            settle(at: tick)
            guard latchedStatus == nil else { return }
            // OUT, null count (what was written is not counted yet), then the control word.
            let isNull = nextCount != nil || !isRunning
            latchedStatus =
                (output(at: tick) ? 0x80 : 0) | (isNull ? 0x40 : 0) | access << 4 | mode << 1 | (isBCD ? 1 : 0)
        }

        mutating func read(at tick: UInt64) -> UInt8 {
            settle(at: tick)
            if let status = latchedStatus {
                latchedStatus = nil
                return status
            }
            let value = latchedCount ?? value(at: tick)
            let isHigh = access == 2 || access == 3 && readsHigh
            if access == 3 { readsHigh.toggle() }
            if access != 3 || isHigh { latchedCount = nil }
            return UInt8(truncatingIfNeeded: isHigh ? value >> 8 : value)
        }
    }
}
