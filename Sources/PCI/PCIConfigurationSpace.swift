// The first 256 bytes of a function's configuration space, type 0 header (PCI 3.0 §6.1, §6.2).
//
// A plain value: bytes, a mask of the bits a guest may write, and the BARs that the mask was made from. BAR sizing needs
// no state of its own: the address bits below the size are read-only zeroes, so writing ones reads back the size.
package import GuestMemory
package import MachineCore

/// The identity a function shows in its header.
package struct PCIIdentity: Sendable, Equatable {
    package var vendor: UInt16
    package var device: UInt16
    package var revision: UInt8
    /// Class, subclass and programming interface, for example 0x01_00_00.
    package var classCode: UInt32
    package var subsystemVendor: UInt16
    package var subsystem: UInt16

    package init(
        vendor: UInt16, device: UInt16, revision: UInt8 = 0, classCode: UInt32, subsystemVendor: UInt16 = 0x1AF4,
        subsystem: UInt16 = 0x1100
    ) {
        self.vendor = vendor
        self.device = device
        self.revision = revision
        self.classCode = classCode
        self.subsystemVendor = subsystemVendor
        self.subsystem = subsystem
    }
}

/// A type 0 configuration space.
package struct PCIConfigurationSpace: Sendable {
    /// Offsets of the header, as the specification names them.
    package enum Register {
        package static let command = 0x04
        package static let status = 0x06
        package static let baseAddress = 0x10
        package static let expansionROM = 0x30
        package static let capabilities = 0x34
        package static let interruptLine = 0x3C
        package static let interruptPin = 0x3D
    }
    /// Bits of the command register.
    package enum Command {
        package static let portSpace: UInt16 = 1 << 0
        package static let memorySpace: UInt16 = 1 << 1
        package static let busMaster: UInt16 = 1 << 2
        package static let interruptDisable: UInt16 = 1 << 10
    }

    package static let byteCount = 256

    private var bytes = [UInt8](repeating: 0, count: byteCount)
    private var writable = [UInt8](repeating: 0, count: byteCount)
    /// In ascending order of index.
    package private(set) var bars: [BaseAddressRegister] = []
    private var romByteCount: UInt64?
    /// Registers of `addRegister` as after power on.
    private var resetValues: [(offset: Int, value: UInt32, byteCount: Int)] = []
    /// PCI Express functions have space up to 4096, empty here. Firmware follows its list of capabilities without looking for all ones.
    var hasExtendedSpace = false
    private var nextCapability: Int
    private var lastPointer = Register.capabilities

    /// - Parameter firstCapability: where capabilities begin: a chipset's own registers may lie at 0x40.
    package init(_ identity: PCIIdentity, firstCapability: Int = 0x40) {
        nextCapability = firstCapability
        put(UInt32(identity.vendor) | UInt32(identity.device) << 16, at: 0x00)
        put(identity.classCode << 8 | UInt32(identity.revision), at: 0x08)
        put(UInt32(identity.subsystemVendor) | UInt32(identity.subsystem) << 16, at: 0x2C)
        // Memory space, bus master, parity, SERR, interrupt disable: what drivers are seen to write. I/O space comes with
        // the first BAR that decodes ports.
        allow(0x0546, at: Register.command)
        allow(0xFF, at: 0x0C)  // cache line size: kept for the guest, without effect
        allow(0xFF, at: Register.interruptLine)
    }

    /// A type 1 header, of a bridge (PCI-to-PCI Bridge Architecture 1.2 §3.2): bus numbers, windows of 16-bit ports, of memory, and of
    /// prefetchable memory of 64 bits. It has no BARs and no place for a subsystem.
    package init(bridge identity: PCIIdentity, firstCapability: Int = 0x40) {
        self.init(identity, firstCapability: firstCapability)
        bytes[0x0E] = 1
        allow(0x0547, at: Register.command)
        // Primary, secondary, subordinate bus; the secondary latency timer has no meaning.
        addRegister(at: Bridge.primaryBus, 0, byteCount: 3, writable: 0xFF_FFFF)
        addRegister(at: Bridge.portWindow, 0, byteCount: 2, writable: 0xF0F0)
        addRegister(at: Bridge.memoryWindow, 0, byteCount: 4, writable: 0xFFF0_FFF0)
        addRegister(at: Bridge.wideWindow, 0x0001_0001, byteCount: 4, writable: 0xFFF0_FFF0)
        addRegister(at: Bridge.wideBaseHigh, 0, byteCount: 4, writable: 0xFFFF_FFFF)
        addRegister(at: Bridge.wideLimitHigh, 0, byteCount: 4, writable: 0xFFFF_FFFF)
        // Parity, SERR, ISA and VGA decoding are kept for the guest, without effect; bit 6 resets what is behind.
        addRegister(at: Bridge.control, 0, byteCount: 2, writable: 0x085F)
    }
    /// Offsets of a type 1 header.
    package enum Bridge {
        package static let primaryBus = 0x18, secondaryBus = 0x19, subordinateBus = 0x1A, portWindow = 0x1C, memoryWindow = 0x20
        package static let wideWindow = 0x24, wideBaseHigh = 0x28, wideLimitHigh = 0x2C, control = 0x3E
        package static let secondaryBusReset: UInt16 = 1 << 6
    }

    // MARK: building

    /// Declares a BAR. Called while the function is made; a register that does not fit the header is a mistake of ours.
    package mutating func addBAR(_ bar: BaseAddressRegister) {
        let isWide = bar.kind == .memory64
        precondition(bar.index >= 0 && bar.index < (isWide ? 5 : 6), "BAR \(bar.index) is outside the header")
        let least: UInt64 = bar.kind == .ports ? 4 : 16
        precondition(bar.byteCount >= least && bar.byteCount & (bar.byteCount - 1) == 0, "BAR size is no power of two")
        let offset = Register.baseAddress + 4 * bar.index
        let mask = ~(bar.byteCount - 1)
        if bar.kind == .ports {
            put(1, at: offset)
            allow(0x0547, at: Register.command)
        } else {
            put((isWide ? 0x4 : 0) | (bar.isPrefetchable ? 0x8 : 0), at: offset)
        }
        allow(UInt32(truncatingIfNeeded: mask), at: offset)
        if isWide { allow(UInt32(truncatingIfNeeded: mask >> 32), at: offset + 4) }
        bars.append(bar)
        bars.sort { $0.index < $1.index }
    }

    /// Appends a capability and returns its offset. `body` starts after the id and the next pointer; `writable` gives
    /// the bits a guest may write in it, and zeroes where it is shorter.
    package mutating func addCapability(id: UInt8, body: [UInt8], writable mask: [UInt8] = []) -> Int {
        let offset = nextCapability
        precondition(offset + 2 + body.count <= Self.byteCount, "capabilities do not fit the header")
        bytes[lastPointer] = UInt8(offset)
        bytes[offset] = id
        for (index, byte) in body.enumerated() { bytes[offset + 2 + index] = byte }
        for (index, byte) in mask.enumerated() where index < body.count { writable[offset + 2 + index] = byte }
        bytes[Register.status] |= 0x10  // capabilities list
        lastPointer = offset + 1
        nextCapability = (offset + 2 + body.count + 3) & ~3
        return offset
    }

    /// The expansion ROM's base address register (§6.2.5.2): bit 0 enables it. Its index among the ranges is `romIndex`.
    package mutating func addExpansionROM(byteCount: UInt64) {
        precondition(byteCount >= 2048 && byteCount & (byteCount - 1) == 0, "ROM size is no power of two")
        allow(UInt32(truncatingIfNeeded: ~(byteCount - 1)) | 1, at: Register.expansionROM)
        romByteCount = byteCount
    }
    package static let romIndex = 6

    /// A register outside the standard header, as data sheets of chipsets have them: its value after power on, and the bits
    /// that a guest may write.
    package mutating func addRegister(at offset: Int, _ value: UInt32, byteCount: Int, writable mask: UInt32) {
        precondition(offset >= 0x04 && offset + byteCount <= Self.byteCount && byteCount <= 4, "no such register")
        resetValues.append((offset, value, byteCount))
        for index in 0..<byteCount {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
            writable[offset + index] = UInt8(truncatingIfNeeded: mask >> UInt32(8 * index))
        }
    }

    /// More than one function answers at this device (header type bit 7): without it the others are never looked for.
    package mutating func setMultifunction() { bytes[0x0E] |= 0x80 }

    /// The status register's Interrupt Status bit, which shows the level of INTx (§6.2.3).
    package mutating func setInterruptStatus(_ isAsserted: Bool) {
        bytes[Register.status] = bytes[Register.status] & ~0x08 | (isAsserted ? 0x08 : 0)
    }

    /// Sets a byte whatever a guest may write there: for status the function itself shows.
    package mutating func setByte(_ value: UInt8, at offset: Int) {
        guard bytes.indices.contains(offset) else { return }
        bytes[offset] = value
    }

    /// Routes the function's INTx: pin 1 (INTA) and the line number firmware would have left for the guest.
    package mutating func setInterrupt(pin: UInt8, line: UInt8) {
        bytes[Register.interruptPin] = pin
        bytes[Register.interruptLine] = line
    }

    // MARK: guest access

    /// Reads as the guest does: out of the header or across its end, all ones, or zeroes where it is extended space: "no capability".
    package func read(offset: Int, width: AccessWidth) -> UInt64 {
        guard offset >= 0, offset <= Self.byteCount - width.byteCount else { return hasExtendedSpace ? 0 : width.allOnes }
        var value: UInt64 = 0
        for index in 0..<width.byteCount { value |= UInt64(bytes[offset + index]) << UInt64(8 * index) }
        return value
    }

    /// Writes as the guest does. Returns whether the ranges decoded may have changed.
    package mutating func write(offset: Int, width: AccessWidth, value: UInt64) -> Bool {
        guard offset >= 0, offset <= Self.byteCount - width.byteCount else { return false }
        for index in 0..<width.byteCount {
            let byte = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
            let mask = writable[offset + index]
            bytes[offset + index] = (bytes[offset + index] & ~mask) | (byte & mask)
        }
        let end = offset + width.byteCount
        return (offset < 0x06 && end > 0x04) || (offset < 0x28 && end > 0x10) || (offset < 0x34 && end > 0x30)
    }

    /// The command register.
    package var command: UInt16 { UInt16(truncatingIfNeeded: read(offset: Register.command, width: .word)) }

    /// What the function decodes now, as far as memory and I/O space are on. A range that would leave the address space (a
    /// BAR in the middle of being sized) decodes nothing.
    package var decodedRanges: [DecodedRange] {
        let command = command
        var ranges = bars.compactMap { bar -> DecodedRange? in
            let isPorts = bar.kind == .ports
            guard command & (isPorts ? Command.portSpace : Command.memorySpace) != 0 else { return nil }
            let base = address(of: bar), limit: UInt64 = isPorts ? 0x1_0000 : .max
            guard base != 0, base <= limit - bar.byteCount else { return nil }
            return DecodedRange(bar: bar.index, base: GuestAddress(base), byteCount: bar.byteCount, isPorts: isPorts)
        }
        if let romByteCount, command & Command.memorySpace != 0 {
            let register = read(offset: Register.expansionROM, width: .doubleWord), base = register & ~0x7FF
            if register & 1 != 0, base != 0, base <= 0xFFFF_F800 - romByteCount {
                ranges.append(DecodedRange(bar: Self.romIndex, base: GuestAddress(base), byteCount: romByteCount))
            }
        }
        return ranges
    }

    /// The address in a BAR, decoded or not.
    package func address(of bar: BaseAddressRegister) -> UInt64 {
        let offset = Register.baseAddress + 4 * bar.index
        let low = read(offset: offset, width: .doubleWord) & (bar.kind == .ports ? ~0x3 : ~0xF)
        return bar.kind == .memory64 ? low | read(offset: offset + 4, width: .doubleWord) << 32 : low
    }

    /// Places a BAR, as firmware would.
    package mutating func place(_ bar: BaseAddressRegister, at base: GuestAddress) {
        let offset = Register.baseAddress + 4 * bar.index
        _ = write(offset: offset, width: .doubleWord, value: base.rawValue & 0xFFFF_FFFF)
        if bar.kind == .memory64 { _ = write(offset: offset + 4, width: .doubleWord, value: base.rawValue >> 32) }
    }

    /// Clears what a bus reset clears: the command register and a chipset's own registers, not the BARs, so that a guest that
    /// reboots without firmware finds them placed.
    package mutating func reset() {
        _ = write(offset: Register.command, width: .word, value: 0)
        for (offset, value, byteCount) in resetValues {
            for index in 0..<byteCount { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
        }
    }

    // MARK: saved state

    package func save(into writer: inout StateWriter) {
        writer.write(bytes)
    }

    /// Takes only the writable bits, so that a damaged state cannot change what the function is.
    package mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let saved = try reader.readBytes(limit: Self.byteCount)
        guard saved.count == Self.byteCount else {
            throw DeviceStateError(section: reader.section, reason: "has \(saved.count) bytes of PCI configuration")
        }
        for index in 0..<Self.byteCount {
            bytes[index] = (bytes[index] & ~writable[index]) | (saved[index] & writable[index])
        }
    }

    private mutating func put(_ value: UInt32, at offset: Int) {
        for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
    }

    private mutating func allow(_ mask: UInt32, at offset: Int) {
        for index in 0..<4 { writable[offset + index] |= UInt8(truncatingIfNeeded: mask >> UInt32(8 * index)) }
    }
}
