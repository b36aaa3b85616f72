// A flash chip with the Intel command set (Intel 28F640, Common Flash Interface publication 100), a byte wide, as OVMF keeps its
// variables in. A plain value but for the pages it is handed: commands in, and whether reads show the array.
package import MachineCore

package struct CFIFlash: Sendable, Equatable {
    package enum Command {
        package static let wordProgram: UInt8 = 0x10, programAgain: UInt8 = 0x40, blockErase: UInt8 = 0x20, clearStatus: UInt8 = 0x50
        package static let readStatus: UInt8 = 0x70, readIdentifier: UInt8 = 0x90, cfiQuery: UInt8 = 0x98, confirm: UInt8 = 0xD0
        package static let lockSetup: UInt8 = 0x60, writeToBuffer: UInt8 = 0xE8, readArray: UInt8 = 0xFF, readArrayToo: UInt8 = 0x00
    }
    package enum Status {
        package static let ready: UInt8 = 0x80, eraseError: UInt8 = 0x20, programError: UInt8 = 0x10
    }
    /// What reads show.
    package enum Mode: UInt8, Sendable { case array = 0, status = 1, identifier = 2, query = 3 }
    /// What the next write means.
    package enum Cycle: UInt8, Sendable { case command = 0, program = 1, eraseConfirm = 2, lockConfirm = 3, bufferCount = 4, bufferData = 5, bufferConfirm = 6 }
    /// What the owner must do to the array.
    package enum Effect: Sendable, Equatable {
        case none
        /// Bits only fall: the byte there and this one.
        case program(offset: Int, byte: UInt8)
        /// All ones.
        case erase(Range<Int>)
        /// A buffer of bytes, in the order they came.
        case programBuffer([(offset: Int, byte: UInt8)])

        package static func == (left: Effect, right: Effect) -> Bool {
            switch (left, right) {
            case (.none, .none): true
            case (.program(let a, let b), .program(let c, let d)): a == c && b == d
            case (.erase(let a), .erase(let b)): a == b
            case (.programBuffer(let a), .programBuffer(let b)): a.elementsEqual(b) { $0 == $1 }
            default: false
            }
        }
    }

    /// Bytes of an erase block.
    package static let blockByteCount = 4096
    private static let bufferLimit = 256
    private static let manufacturer: UInt8 = 0x89, device: UInt8 = 0x18

    package private(set) var mode = Mode.array
    private var cycle = Cycle.command
    private var status = Status.ready
    private var expected = 0
    private var buffer: [(offset: Int, byte: UInt8)] = []

    package init() {}

    package static func == (left: CFIFlash, right: CFIFlash) -> Bool {
        left.mode == right.mode && left.cycle == right.cycle && left.status == right.status
    }

    /// A read while `mode` is not `array`.
    package func read(_ offset: Int) -> UInt8 {
        switch mode {
        case .array: 0xFF
        case .status: status
        case .identifier: offset & 0xFF == 0 ? Self.manufacturer : offset & 0xFF == 1 ? Self.device : 0
        // "QRY" is where a byte-wide chip has it; the rest of the table is not there to be found.
        case .query: switch offset & 0xFF { case 0x10: 0x51; case 0x11: 0x52; case 0x12: 0x59; case 0x13: 0x01; default: 0 }
        }
    }

    /// A byte written at `offset`.
    package mutating func write(_ byte: UInt8, at offset: Int) -> Effect {
        switch cycle {
        case .command:
            command(byte)
            return .none
        case .program:
            cycle = .command
            mode = .status
            return .program(offset: offset, byte: byte)
        case .eraseConfirm:
            cycle = .command
            mode = .status
            guard byte == Command.confirm else {
                status |= Status.eraseError | Status.programError
                return .none
            }
            let start = offset & ~(Self.blockByteCount - 1)
            return .erase(start..<(start + Self.blockByteCount))
        case .lockConfirm:
            cycle = .command
            return .none
        case .bufferCount:
            expected = Int(byte) + 1
            buffer = []
            cycle = .bufferData
            return .none
        case .bufferData:
            if buffer.count < Self.bufferLimit { buffer.append((offset, byte)) }
            if buffer.count >= expected { cycle = .bufferConfirm }
            return .none
        case .bufferConfirm:
            cycle = .command
            mode = .status
            defer { buffer = [] }
            guard byte == Command.confirm else {
                status |= Status.programError
                return .none
            }
            return .programBuffer(buffer)
        }
    }

    private mutating func command(_ byte: UInt8) {
        switch byte {
        case Command.wordProgram, Command.programAgain:
            cycle = .program
            mode = .status
        case Command.blockErase:
            cycle = .eraseConfirm
            mode = .status
        case Command.lockSetup:
            cycle = .lockConfirm
            mode = .status
        case Command.writeToBuffer:
            cycle = .bufferCount
            mode = .status
        case Command.clearStatus:
            // The chip reads on as before; a driver that looks for a chip sees its byte unchanged.
            status = Status.ready
        case Command.readStatus: mode = .status
        case Command.readIdentifier: mode = .identifier
        case Command.cfiQuery: mode = .query
        default: mode = .array
        }
    }

    package mutating func reset() { self = CFIFlash() }

    // MARK: Saved state

    /// A buffered program in progress is in it: without it the rest of the driver's bytes would be commands.
    package func save(into writer: inout StateWriter) {
        for byte in [mode.rawValue, cycle.rawValue, status] { writer.write(byte) }
        writer.write(UInt16(truncatingIfNeeded: expected))
        writer.write(UInt16(truncatingIfNeeded: buffer.count))
        for (offset, byte) in buffer {
            writer.write(UInt32(truncatingIfNeeded: offset))
            writer.write(byte)
        }
    }

    /// In version 1 no buffered program was kept.
    package init(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let mode: UInt8 = try reader.read(), cycle: UInt8 = try reader.read()
        status = try reader.read()
        guard let mode = Mode(rawValue: mode), var cycle = Cycle(rawValue: cycle) else {
            throw DeviceStateError(section: reader.section, reason: "mode \(mode), cycle \(cycle)")
        }
        let isBuffered = cycle.rawValue >= Cycle.bufferCount.rawValue
        if version == 1 {
            if isBuffered { cycle = .command }
        } else {
            expected = Int(try reader.read(UInt16.self))
            let count = Int(try reader.read(UInt16.self))
            let isSound =
                switch cycle {
                case .bufferData: count < expected
                case .bufferConfirm: count == expected && count > 0
                default: count == 0
                }
            guard isSound, expected <= Self.bufferLimit else {
                throw DeviceStateError(section: reader.section, reason: "\(count) of \(expected) bytes in cycle \(cycle)")
            }
            for _ in 0..<count { buffer.append((Int(try reader.read(UInt32.self)), try reader.read())) }
        }
        self.mode = mode
        self.cycle = cycle
    }
}
