// A processor's local APIC (Intel SDM 3A chapter 11, "APIC"): xAPIC and x2APIC modes, local vector table, priorities,
// timer. A pure value: what a register write sends to others is returned, what the processor is to take is asked for by
// `pending`.
//
//     message --> receive --> IRR --(priority above PPR)--> acknowledge --> ISR --> end of interrupt --> I/O APIC (level)
//
// Registers are numbered as x2APIC's MSRs are from 0x800, that is by their xAPIC offset divided by 16.
package struct LocalAPIC: Sendable {
    package static let baseAddress: UInt64 = 0xFEE0_0000, byteCount: UInt64 = 0x1000

    package enum Register {
        package static let identifier: UInt32 = 0x02, version: UInt32 = 0x03, taskPriority: UInt32 = 0x08
        package static let arbitrationPriority: UInt32 = 0x09, processorPriority: UInt32 = 0x0A,
            endOfInterrupt: UInt32 = 0x0B
        package static let logicalDestination: UInt32 = 0x0D, destinationFormat: UInt32 = 0x0E, spurious: UInt32 = 0x0F
        package static let inService: UInt32 = 0x10, triggerMode: UInt32 = 0x18, request: UInt32 = 0x20
        package static let errorStatus: UInt32 = 0x28, commandLow: UInt32 = 0x30, commandHigh: UInt32 = 0x31
        package static let timer: UInt32 = 0x32, thermal: UInt32 = 0x33, performance: UInt32 = 0x34
        package static let lint0: UInt32 = 0x35, lint1: UInt32 = 0x36, error: UInt32 = 0x37
        package static let initialCount: UInt32 = 0x38, currentCount: UInt32 = 0x39, divide: UInt32 = 0x3E
        package static let selfIPI: UInt32 = 0x3F
    }
    /// Six local vectors, an integrated APIC, directed EOI.
    static let version: UInt32 = 0x0105_0014
    enum BaseMSR {
        static let isBootProcessor: UInt64 = 1 << 8, extended: UInt64 = 1 << 10, enabled: UInt64 = 1 << 11
        static let address: UInt64 = 0x000F_FFFF_FFFF_F000
    }
    enum Spurious {
        static let enabled: UInt32 = 1 << 8, suppressesBroadcast: UInt32 = 1 << 12, writable: UInt32 = 0x11FF
    }
    enum LocalVector {
        static let masked: UInt32 = 1 << 16, level: UInt32 = 1 << 15, remoteIRR: UInt32 = 1 << 14
        static let modeShift: UInt32 = 8
    }
    enum ErrorStatus {
        static let sendIllegalVector: UInt32 = 1 << 5, receiveIllegalVector: UInt32 = 1 << 6,
            illegalRegister: UInt32 = 1 << 7
    }

    /// What a write asks of the rest of the machine.
    package struct Output: Sendable, Equatable {
        /// To other processors, or to this one by destination.
        package var message: APICMessage?
        /// A level-triggered interrupt ended: tell the I/O APIC.
        package var endedLevel: UInt8?
        /// False: the access is a general protection fault (MSRs only).
        package var isValid = true
    }
    /// What a message asks of the processor beside its interrupts.
    package enum Event: Sendable, Equatable { case smi, nmi, initialize, startUp(vector: UInt8) }

    package let initialID: UInt32
    var identifier: UInt32
    package internal(set) var baseMSR: UInt64
    var taskPriority: UInt32 = 0, logicalDestination: UInt32 = 0, destinationFormat: UInt32 = .max
    var spurious: UInt32 = 0xFF
    package internal(set) var requests = VectorSet(), inService = VectorSet(), triggerModes = VectorSet()
    var errorStatus: UInt32 = 0, pendingErrors: UInt32 = 0
    var commandLow: UInt32 = 0, commandHigh: UInt32 = 0
    /// Timer, thermal, performance, LINT0, LINT1, error.
    var localVectors: [6 of UInt32] = [6 of UInt32](repeating: LocalVector.masked)
    var timer = Timer()
    /// INTR of the 8259A pair, and an ExtINT message not taken yet.
    var lint0IsHigh = false, hasExternalInterrupt = false
    /// After INIT, until the start-up message.
    package internal(set) var waitsForStartUp: Bool

    /// `id` is the APIC id; the boot processor's LINT0 lets the 8259A pair through, as firmware leaves it.
    package init(id: UInt32, isBootProcessor: Bool) {
        initialID = id
        identifier = id
        baseMSR = Self.baseAddress | BaseMSR.enabled | (isBootProcessor ? BaseMSR.isBootProcessor : 0)
        waitsForStartUp = !isBootProcessor
        if isBootProcessor {
            localVectors[3] = UInt32(APICMessage.DeliveryMode.externalInterrupt.rawValue) << LocalVector.modeShift
        }
    }

    package var isBootProcessor: Bool { baseMSR & BaseMSR.isBootProcessor != 0 }
    package var isEnabled: Bool { baseMSR & BaseMSR.enabled != 0 }
    package var isExtended: Bool { baseMSR & BaseMSR.extended != 0 }
    /// Takes interrupts: by the MSR and by the spurious vector register.
    package var isSoftwareEnabled: Bool { isEnabled && spurious & Spurious.enabled != 0 }
    /// Where the registers are in memory; nil in x2APIC mode and while disabled.
    package var window: UInt64? { isEnabled && !isExtended ? baseMSR & BaseMSR.address : nil }

    // MARK: Messages

    /// Whether a message for `destination` is for this processor.
    package func accepts(_ message: APICMessage) -> Bool {
        let destination = message.destination
        guard isEnabled else { return false }
        if message.isExtended ? destination == .max : destination == 0xFF { return true }
        guard message.isLogical else { return destination == identifier }
        if isExtended {
            // An 8-bit destination addresses cluster 0.
            return destination >> 16 == logicalDestination >> 16 && destination & logicalDestination & 0xFFFF != 0
        }
        let mine = logicalDestination >> 24
        if destinationFormat >> 28 == 0 {
            return destination >> 4 == mine >> 4 && destination & mine & 0x0F != 0
        }
        return destination & mine != 0
    }

    /// A message that this processor accepts. The event, where it is none of its interrupts.
    package mutating func receive(_ message: APICMessage) -> Event? {
        switch message.mode {
        case .fixed, .lowestPriority: accept(message.vector, isLevel: message.isLevel)
        case .externalInterrupt: hasExternalInterrupt = true
        case .smi: return .smi
        case .nmi: return .nmi
        case .initialize:
            reset()
            waitsForStartUp = true
            return .initialize
        case .startUp:
            guard waitsForStartUp else { return nil }
            waitsForStartUp = false
            return .startUp(vector: message.vector)
        }
        return nil
    }

    private mutating func accept(_ vector: UInt8, isLevel: Bool) {
        guard isSoftwareEnabled else { return }
        guard vector >= 16 else { return raiseError(ErrorStatus.receiveIllegalVector) }
        requests.insert(vector)
        if isLevel { triggerModes.insert(vector) } else { triggerModes.remove(vector) }
    }

    /// INIT: everything but the APIC id and the mode (§11.4.7.3).
    package mutating func reset() {
        var fresh = LocalAPIC(id: initialID, isBootProcessor: isBootProcessor)
        fresh.baseMSR = baseMSR
        fresh.identifier = identifier
        fresh.lint0IsHigh = lint0IsHigh
        fresh.waitsForStartUp = waitsForStartUp
        if isExtended { fresh.logicalDestination = Self.extendedLogicalDestination(identifier) }
        self = fresh
    }

    static func extendedLogicalDestination(_ id: UInt32) -> UInt32 { (id >> 4) << 16 | 1 << (id & 0x0F) }

    mutating func raiseError(_ bits: UInt32) {
        let isNew = pendingErrors & bits != bits
        pendingErrors |= bits
        if isNew { deliver(localVectors[5], isLevel: false) }
    }

    /// A local interrupt by its table entry. The event, where it is none of the processor's interrupts.
    @discardableResult
    mutating func deliver(_ entry: UInt32, isLevel: Bool) -> Event? {
        guard entry & LocalVector.masked == 0 else { return nil }
        switch APICMessage.DeliveryMode(rawValue: UInt8(entry >> LocalVector.modeShift & 7)) {
        case .fixed?:
            let vector = UInt8(entry & 0xFF)
            // An error about the error vector itself would not end.
            if vector >= 16 {
                accept(vector, isLevel: isLevel)
            } else {
                pendingErrors |= ErrorStatus.receiveIllegalVector
            }
        case .smi?: return .smi
        case .nmi?: return .nmi
        default: break
        }
        return nil
    }

    // MARK: Local inputs

    /// INTR of the 8259A pair. The event, where LINT0 is set to one.
    package mutating func setLINT0(isHigh: Bool) -> Event? {
        let isRising = isHigh && !lint0IsHigh
        lint0IsHigh = isHigh
        return isRising && isSoftwareEnabled
            ? deliver(localVectors[3], isLevel: localVectors[3] & LocalVector.level != 0) : nil
    }

    /// The platform's NMI. The event, where the processor is to take one.
    package mutating func pulseLINT1() -> Event? {
        guard isEnabled else { return .nmi }
        return deliver(localVectors[4], isLevel: false)
    }

    // MARK: The processor's side

    /// PPR: nothing at or below its class interrupts.
    package var processorPriority: UInt32 {
        let service = UInt32(inService.highest ?? 0)
        return taskPriority >> 4 >= service >> 4 ? taskPriority : service & 0xF0
    }

    /// The vector to interrupt the processor with; nil: none is above its priority.
    package var pending: UInt8? {
        guard isSoftwareEnabled, let vector = requests.highest, UInt32(vector) >> 4 > processorPriority >> 4 else {
            return nil
        }
        return vector
    }

    /// The 8259A pair wants the processor, and LINT0 (or a disabled APIC, or an ExtINT message) lets it: its
    /// acknowledge cycle gives the vector. Comes after `pending`.
    package var isExternalInterruptPending: Bool {
        if hasExternalInterrupt { return true }
        guard lint0IsHigh else { return false }
        guard isEnabled else { return true }
        let entry = localVectors[3], mode = UInt8(entry >> LocalVector.modeShift & 7)
        return entry & LocalVector.masked == 0 && mode == APICMessage.DeliveryMode.externalInterrupt.rawValue
    }

    /// The processor takes an interrupt: its vector, the spurious one where what was pending has gone.
    package mutating func acknowledge() -> UInt8 {
        guard let vector = pending else { return UInt8(spurious & 0xFF) }
        requests.remove(vector)
        inService.insert(vector)
        return vector
    }

    package mutating func acknowledgeExternalInterrupt() { hasExternalInterrupt = false }

    /// CR8: bits 7 to 4 of the task priority.
    package var cr8: UInt64 {
        get { UInt64(taskPriority >> 4) }
        set { taskPriority = UInt32(newValue & 0x0F) << 4 }
    }
}
