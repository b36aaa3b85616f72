// Registers of the local APIC, reached through memory (xAPIC) or MSRs 0x800 to 0x83F (x2APIC).
package import MachineCore

extension LocalAPIC {
    /// IA32_APIC_BASE. False: a general protection fault, for a mode that cannot follow the present one (§11.12.5).
    package mutating func setBaseMSR(_ value: UInt64) -> Bool {
        let reserved = ~(BaseMSR.address | BaseMSR.isBootProcessor | BaseMSR.extended | BaseMSR.enabled)
        let willBeEnabled = value & BaseMSR.enabled != 0, willBeExtended = value & BaseMSR.extended != 0
        guard value & reserved == 0, willBeEnabled || !willBeExtended else { return false }
        // x2APIC mode is entered from xAPIC mode and left by way of disabled.
        if willBeExtended, !isEnabled { return false }
        if isExtended, willBeEnabled, !willBeExtended { return false }
        let wasEnabled = isEnabled, wasExtended = isExtended
        baseMSR = value & ~BaseMSR.isBootProcessor | baseMSR & BaseMSR.isBootProcessor
        if willBeExtended, !wasExtended {
            identifier = initialID
            logicalDestination = Self.extendedLogicalDestination(initialID)
        }
        if wasEnabled, !willBeEnabled {
            identifier = initialID
            reset()
        }
        return true
    }

    // MARK: Memory

    /// Only aligned accesses of four bytes are defined; others read 0 and write nothing.
    package func readMemory(_ offset: UInt64, width: AccessWidth, at now: UInt64) -> UInt64 {
        guard width == .doubleWord, offset & 0x0F == 0, offset < Self.byteCount else { return 0 }
        let register = UInt32(offset >> 4)
        return UInt64(register == Register.identifier ? identifier << 24 : read(register, at: now))
    }

    package mutating func writeMemory(_ offset: UInt64, width: AccessWidth, value: UInt64, at now: UInt64) -> Output {
        guard width == .doubleWord, offset & 0x0F == 0, offset < Self.byteCount else { return Output() }
        let register = UInt32(offset >> 4), value = UInt32(truncatingIfNeeded: value)
        switch register {
        case Register.identifier: identifier = value >> 24
        case Register.logicalDestination: logicalDestination = value & 0xFF00_0000
        case Register.destinationFormat: destinationFormat = value | 0x0FFF_FFFF
        case Register.commandLow:
            commandLow = value & 0x000C_CFFF
            return send(commandHigh >> 24, isExtended: false)
        case Register.commandHigh: commandHigh = value & 0xFF00_0000
        case Register.selfIPI: raiseError(ErrorStatus.illegalRegister)
        default: return write(register, value, at: now)
        }
        return Output()
    }

    // MARK: MSRs

    /// Nil: a general protection fault.
    package func readMSR(_ number: UInt32, at now: UInt64) -> UInt64? {
        guard isExtended, (0x800...0x83F).contains(number) else { return nil }
        let register = number - 0x800
        switch register {
        case Register.identifier: return UInt64(identifier)
        case Register.commandLow: return UInt64(commandHigh) << 32 | UInt64(commandLow)
        case Register.version, Register.taskPriority, Register.processorPriority, Register.logicalDestination,
            Register.spurious,
            Register.inService..<(Register.errorStatus + 1), Register.timer...Register.currentCount, Register.divide:
            return UInt64(read(register, at: now))
        default: return nil
        }
    }

    package mutating func writeMSR(_ number: UInt32, _ value: UInt64, at now: UInt64) -> Output {
        let fault = Output(isValid: false)
        guard isExtended, (0x800...0x83F).contains(number) else { return fault }
        let register = number - 0x800
        if register == Register.commandLow {
            guard value & 0xFFF3_2000 == 0 else { return fault }
            commandLow = UInt32(truncatingIfNeeded: value)
            commandHigh = UInt32(truncatingIfNeeded: value >> 32)
            return send(commandHigh, isExtended: true)
        }
        guard let value = UInt32(exactly: value) else { return fault }
        switch register {
        case Register.taskPriority where value <= 0xFF, Register.endOfInterrupt where value == 0,
            Register.errorStatus where value == 0, Register.spurious where value & ~Spurious.writable == 0,
            Register.divide where value & ~0x0B == 0:
            return write(register, value, at: now)
        case Register.timer...Register.initialCount: return write(register, value, at: now)
        case Register.selfIPI where value <= 0xFF:
            return Output(
                message: APICMessage(
                    vector: UInt8(value), mode: .fixed, destination: identifier, isLogical: false, isLevel: false,
                    shorthand: .itself, isExtended: true))
        default: return fault
        }
    }

    // MARK: Both

    private func read(_ register: UInt32, at now: UInt64) -> UInt32 {
        switch register {
        case Register.version: Self.version
        case Register.taskPriority: taskPriority
        case Register.arbitrationPriority, Register.processorPriority: processorPriority
        case Register.logicalDestination: logicalDestination
        case Register.destinationFormat: destinationFormat
        case Register.spurious: spurious
        case Register.inService..<(Register.inService + 8): inService.register(register - Register.inService)
        case Register.triggerMode..<(Register.triggerMode + 8): triggerModes.register(register - Register.triggerMode)
        case Register.request..<(Register.request + 8): requests.register(register - Register.request)
        case Register.errorStatus: errorStatus
        case Register.commandLow: commandLow
        case Register.commandHigh: commandHigh
        case Register.timer...Register.error: localVectors[Int(register - Register.timer)]
        case Register.initialCount: timer.initialCount
        case Register.currentCount: timer.currentCount(mode: timerMode, at: now)
        case Register.divide: timer.divideConfiguration
        default: 0
        }
    }

    private mutating func write(_ register: UInt32, _ value: UInt32, at now: UInt64) -> Output {
        switch register {
        case Register.taskPriority: taskPriority = value & 0xFF
        case Register.endOfInterrupt: return endInterrupt()
        case Register.spurious:
            spurious = value & Spurious.writable
            // A disabled APIC has its table masked, for good (§11.4.7.2).
            if spurious & Spurious.enabled == 0 {
                for index in 0..<6 { localVectors[index] |= LocalVector.masked }
            }
        case Register.errorStatus:
            errorStatus = pendingErrors
            pendingErrors = 0
        case Register.timer...Register.error: setLocalVector(Int(register - Register.timer), value, at: now)
        case Register.initialCount:
            guard timerMode != .deadline else { break }
            timer.start(value, at: now)
        case Register.divide: timer.setDivide(value & 0x0B, mode: timerMode, at: now)
        // What is read-only, and what there is not.
        case Register.version, Register.arbitrationPriority, Register.processorPriority,
            Register.inService..<Register.errorStatus,
            Register.currentCount:
            break
        default: raiseError(ErrorStatus.illegalRegister)
        }
        return Output()
    }

    private mutating func setLocalVector(_ index: Int, _ value: UInt32, at now: UInt64) {
        // Timer: vector, mask, mode. Thermal, performance: vector, delivery, mask. LINT: polarity and trigger too.
        // Error: vector.
        let writable: UInt32 =
            switch index {
            case 0: 0x0007_00FF
            case 1, 2: 0x0001_07FF
            case 3, 4: 0x0001_A7FF
            default: 0x0001_00FF
            }
        let mode = timerMode
        localVectors[index] = value & writable | (isSoftwareEnabled ? 0 : LocalVector.masked)
        // The two kinds of timer do not know each other's count.
        if index == 0, (mode == .deadline) != (timerMode == .deadline) { timer.stop() }
    }

    private mutating func endInterrupt() -> Output {
        guard let vector = inService.highest else { return Output() }
        inService.remove(vector)
        guard triggerModes.contains(vector), spurious & Spurious.suppressesBroadcast == 0 else { return Output() }
        return Output(endedLevel: vector)
    }

    private mutating func send(_ destination: UInt32, isExtended: Bool) -> Output {
        let shorthand = APICMessage.Shorthand(rawValue: UInt8(commandLow >> 18 & 3)) ?? .none
        guard let mode = APICMessage.DeliveryMode(rawValue: UInt8(commandLow >> 8 & 7)), mode != .externalInterrupt
        else {
            return Output()
        }
        let isLevel = commandLow & 0x8000 != 0, isAssert = commandLow & 0x4000 != 0
        // INIT level de-assert synchronised the arbitration of APICs on a bus of their own; nobody listens to it now.
        if mode == .initialize, isLevel, !isAssert { return Output() }
        let vector = UInt8(commandLow & 0xFF)
        if mode == .fixed || mode == .lowestPriority, vector < 16 {
            raiseError(ErrorStatus.sendIllegalVector)
            return Output()
        }
        return Output(
            message: APICMessage(
                vector: vector, mode: mode, destination: destination, isLogical: commandLow & 0x0800 != 0,
                isLevel: false,
                shorthand: shorthand, isExtended: isExtended))
    }
}
