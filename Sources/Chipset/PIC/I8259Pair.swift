// The two 8259A of a PC: interrupts 8 to 15 reach the processor through input 2 of the first, whose request follows the
// second's INT as a level, so that no interrupt is lost between the two. A pure value: what changes INTR says so. Its
// ports and lines are `InterruptFabric`'s.
package import MachineCore

package struct I8259Pair: Sendable, Equatable {
    /// Port 0x4D0: IRQ 0, 1 and 2 are always edges; 0x4D1: so are 8 and 13.
    package static let levelCapable: (master: UInt8, slave: UInt8) = (0xF8, 0xDE)
    private static let cascadeInput: UInt8 = 2, cascadeBit: UInt8 = 1 << cascadeInput
    /// What a controller answers when its request has gone before the processor took it.
    private static let spuriousInput: UInt8 = 7

    package internal(set) var master = I8259(), slave = I8259()

    package init() {}

    /// INTR, which goes to the processor (or LINT0 of its local APIC).
    package var isInterrupting: Bool { master.pending(nested: Self.cascadeBit) != nil }

    /// Changes the pair; the answer is INTR's new level where it changed.
    private mutating func change(_ body: (inout I8259Pair) -> Void) -> Bool? {
        let before = isInterrupting
        body(&self)
        cascade()
        let after = isInterrupting
        return before == after ? nil : after
    }

    private mutating func cascade() {
        let isHigh = slave.pending() != nil
        master.inputs = isHigh ? master.inputs | Self.cascadeBit : master.inputs & ~Self.cascadeBit
        master.requests = isHigh ? master.requests | Self.cascadeBit : master.requests & ~Self.cascadeBit
    }

    /// The level of ISA interrupt `number` (0 to 15; 2 does not exist). INTR's new level where it changed.
    @discardableResult
    package mutating func setInput(_ number: UInt8, isHigh: Bool) -> Bool? {
        guard number < 16, number != Self.cascadeInput else { return nil }
        return change { pair in
            if number < 8 {
                pair.master.setInput(number, isHigh: isHigh)
            } else {
                pair.slave.setInput(number - 8, isHigh: isHigh)
            }
        }
    }

    /// The processor's acknowledge cycle: the vector, and INTR's new level where it changed.
    package mutating func acknowledge() -> (vector: UInt8, interruptRequest: Bool?) {
        var vector: UInt8 = 0
        let level = change { pair in
            guard let input = pair.master.pending(nested: Self.cascadeBit) else {
                vector = pair.master.vectorBase | Self.spuriousInput
                return
            }
            pair.master.acknowledge(input)
            guard input == Self.cascadeInput else {
                vector = pair.master.vectorBase | input
                return
            }
            let slaveInput = pair.slave.pending()
            if let slaveInput { pair.slave.acknowledge(slaveInput) }
            vector = pair.slave.vectorBase | (slaveInput ?? Self.spuriousInput)
        }
        return (vector, level)
    }

    // MARK: Registers

    package enum Port: UInt16, Sendable {
        case masterCommand = 0x20, masterData = 0x21, slaveCommand = 0xA0, slaveData = 0xA1
        case masterELCR = 0x4D0, slaveELCR = 0x4D1
    }

    /// INTR's new level where it changed.
    @discardableResult
    package mutating func write(_ port: Port, _ value: UInt8) -> Bool? {
        change { pair in
            switch port {
            case .masterCommand: pair.master.write(isOdd: false, value)
            case .masterData: pair.master.write(isOdd: true, value)
            case .slaveCommand: pair.slave.write(isOdd: false, value)
            case .slaveData: pair.slave.write(isOdd: true, value)
            case .masterELCR: pair.master.setLevelTriggered(value & Self.levelCapable.master)
            case .slaveELCR: pair.slave.setLevelTriggered(value & Self.levelCapable.slave)
            }
        }
    }

    /// A poll is an acknowledge, so that INTR may change: its new level then.
    package mutating func read(_ port: Port) -> (value: UInt8, interruptRequest: Bool?) {
        var value: UInt8 = 0
        let level = change { pair in
            value =
                switch port {
                case .masterCommand: pair.master.read(isOdd: false, nested: Self.cascadeBit)
                case .masterData: pair.master.read(isOdd: true, nested: Self.cascadeBit)
                case .slaveCommand: pair.slave.read(isOdd: false)
                case .slaveData: pair.slave.read(isOdd: true)
                case .masterELCR: pair.master.levelTriggered
                case .slaveELCR: pair.slave.levelTriggered
                }
        }
        return (value, level)
    }

    // MARK: Saved state

    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter) {
        master.save(into: &writer)
        slave.save(into: &writer)
    }

    package mutating func restore(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = I8259Pair()
        try copy.master.restore(from: &reader)
        try copy.slave.restore(from: &reader)
        copy.master.levelTriggered &= Self.levelCapable.master
        copy.slave.levelTriggered &= Self.levelCapable.slave
        copy.cascade()
        self = copy
    }
}

extension I8259 {
    fileprivate func save(into writer: inout StateWriter) {
        for byte in [
            requests, inService, mask, inputs, levelTriggered, vectorBase, cascade, initialization.rawValue, firstInput,
        ] { writer.write(byte) }
        for flag in [
            needsICW4, isSingle, hasAutomaticEOI, isSpecialFullyNested, rotatesOnAutomaticEOI, isSpecialMask, readsISR,
            isPolled,
        ] { writer.write(flag) }
    }

    fileprivate mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        requests = try reader.read()
        inService = try reader.read()
        mask = try reader.read()
        inputs = try reader.read()
        levelTriggered = try reader.read()
        vectorBase = try reader.read(UInt8.self) & 0xF8
        cascade = try reader.read()
        let step: UInt8 = try reader.read()
        guard let initialization = Initialization(rawValue: step) else {
            throw DeviceStateError(section: reader.section, reason: "an 8259A is at initialisation step \(step) of 3")
        }
        self.initialization = initialization
        firstInput = try reader.read(UInt8.self) & 7
        needsICW4 = try reader.readBool()
        isSingle = try reader.readBool()
        hasAutomaticEOI = try reader.readBool()
        isSpecialFullyNested = try reader.readBool()
        rotatesOnAutomaticEOI = try reader.readBool()
        isSpecialMask = try reader.readBool()
        readsISR = try reader.readBool()
        isPolled = try reader.readBool()
    }
}
