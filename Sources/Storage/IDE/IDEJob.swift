// What a drive on an IDE channel is doing between the command and its end: the one piece of state that the data port, the bus
// master and the image move along. Plain fields, so that a machine can be saved in the middle of a sector.
import MachineCore

struct IDEJob: Sendable {
    enum Kind: UInt8, Sendable {
        case none = 0
        /// The image fills the buffer, the port empties it.
        case readPIO
        /// The port fills the buffer, the image takes it.
        case writePIO
        /// The buffer was filled by the drive itself: IDENTIFY, INQUIRY.
        case dataPIO
        /// The port takes a command packet.
        case packetCommand
        /// The port takes a packet command's parameters.
        case packetParameters
        /// Between image and memory, once the bus master is started.
        case readDMA
        case writeDMA
        /// From the buffer to memory.
        case dataDMA
        /// Ranges to trim come from memory.
        case trimDMA
        /// A packet command's parameters come from memory.
        case parametersDMA
        /// No data: a flush, a discard.
        case plain
    }

    var kind = Kind.none
    /// In the image.
    var offset: UInt64 = 0
    /// Bytes that the image has not moved yet.
    var remaining = 0
    /// Bytes between interrupts of programmed I/O, or the byte count limit of a packet.
    var blockByteCount = 512
    var isDurable = false
    var isPacket = false
    /// Bytes in the buffer, where the port is, and where it stops for the next interrupt.
    var filled = 0
    var position = 0
    var pieceEnd = 0
    /// The command packet at work.
    var packet: [UInt8] = []

    /// The data port moves bytes now.
    var isAtPort: Bool { position < pieceEnd }
    var isDMA: Bool {
        switch kind {
        case .readDMA, .writeDMA, .dataDMA, .trimDMA, .parametersDMA: true
        default: false
        }
    }

    /// Whether what the image has still to move lies within `byteCount` bytes.
    func isWithin(_ byteCount: UInt64) -> Bool {
        let wanted: Int
        switch kind {
        case .readPIO, .readDMA, .writeDMA: wanted = remaining
        // The piece at the port is written as it is, whatever remains.
        case .writePIO: wanted = max(remaining, pieceEnd)
        default: return true
        }
        return offset <= byteCount && UInt64(clamping: wanted) <= byteCount - offset
    }

    func save(into writer: inout StateWriter) {
        writer.write(kind.rawValue)
        writer.write(offset)
        for number in [remaining, blockByteCount, filled, position, pieceEnd] { writer.write(UInt32(clamping: number)) }
        writer.write(isDurable)
        writer.write(isPacket)
        writer.write(packet)
    }

    init() {}

    init(from reader: inout StateReader, bufferByteCount: Int) throws(DeviceStateError) {
        guard let kind = Kind(rawValue: try reader.read()) else {
            throw DeviceStateError(section: reader.section, reason: "has a job of no kind that is known")
        }
        self.kind = kind
        offset = try reader.read()
        remaining = Int(try reader.read(UInt32.self))
        blockByteCount = Int(try reader.read(UInt32.self))
        filled = Int(try reader.read(UInt32.self))
        position = Int(try reader.read(UInt32.self))
        pieceEnd = Int(try reader.read(UInt32.self))
        isDurable = try reader.readBool()
        isPacket = try reader.readBool()
        packet = try reader.readBytes(limit: 16)
        guard filled <= bufferByteCount, pieceEnd <= bufferByteCount, position <= pieceEnd, blockByteCount > 0,
            blockByteCount <= 1 << 16
        else {
            throw DeviceStateError(section: reader.section, reason: "has a job that does not fit the drive's buffer")
        }
    }
}
