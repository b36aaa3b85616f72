// The 82077AA floppy disk controller (Intel data sheet 290166) in PC/AT mode, with two drives for raw images. Data goes
// by DMA only: a guest that chooses programmed transfers (SPECIFY, ND) gets an overrun. Deleted data, READ TRACK and
// SCAN are refused as invalid commands. A pure value: a command that needs a sector returns the operation, whose end is
// told by `finish`.
//
//     idle --bytes--> command --last byte--> execution --finish--> result --last byte read--> idle
//                         \---------------- seek, sense, specify … -----/

package struct I82077: Sendable {
    package static let sectorByteCount = 512
    package static let driveCount = 2

    /// Offsets from 0x3F0. 0x3F6 is the disk controller's.
    package enum Register {
        package static let digitalOutput: UInt64 = 2, tapeDrive: UInt64 = 3, mainStatus: UInt64 = 4, fifo: UInt64 = 5
        package static let digitalInput: UInt64 = 7
    }
    enum DigitalOutput {
        static let driveSelect: UInt8 = 0x03, notReset: UInt8 = 0x04, interruptAndDMA: UInt8 = 0x08
    }
    enum MainStatus {
        static let request: UInt8 = 0x80, toHost: UInt8 = 0x40, busy: UInt8 = 0x10
    }
    enum Status0 {
        static let abnormal: UInt8 = 0x40, invalid: UInt8 = 0x80, polled: UInt8 = 0xC0, seekEnd: UInt8 = 0x20
        static let equipmentCheck: UInt8 = 0x10
    }
    enum Status1 {
        static let endOfCylinder: UInt8 = 0x80, dataError: UInt8 = 0x20, overrun: UInt8 = 0x10, noData: UInt8 = 0x04
        static let notWritable: UInt8 = 0x02, missingMark: UInt8 = 0x01
    }
    enum Status2 { static let wrongCylinder: UInt8 = 0x10 }

    /// What a disk looks like. `rate` is the code of the data rate it is read at: 0 for 500 kbit/s, 2 for 250, 3 for
    /// 1000.
    package struct Geometry: Sendable, Equatable {
        package let cylinders: Int, heads: Int, sectors: Int
        package let rate: UInt8

        /// Nil where no disk has so many sectors of 512 bytes.
        package init?(sectorCount: Int) {
            switch sectorCount {
            case 2880: (cylinders, heads, sectors, rate) = (80, 2, 18, 0)
            case 5760: (cylinders, heads, sectors, rate) = (80, 2, 36, 3)
            case 2400: (cylinders, heads, sectors, rate) = (80, 2, 15, 0)
            case 1440: (cylinders, heads, sectors, rate) = (80, 2, 9, 2)
            default: return nil
            }
        }
    }
    package struct Disk: Sendable, Equatable {
        package let geometry: Geometry
        package let isReadOnly: Bool

        package init(geometry: Geometry, isReadOnly: Bool) {
            self.geometry = geometry
            self.isReadOnly = isReadOnly
        }
    }
    struct Drive: Sendable {
        var isPresent = false
        var disk: Disk?
        var cylinder: UInt8 = 0
        /// DSKCHG: the disk was changed since the head last moved with one in the drive.
        var isChanged = true
        /// The sector that passes the head next.
        var passing: UInt8 = 1
    }

    /// What the wiring is to do with one sector.
    package struct Operation: Sendable, Equatable {
        package enum Kind: UInt8, Sendable { case read, write, format }
        package var kind: Kind
        package var drive: Int
        /// From the start of the image.
        package var sector: Int
        /// What a format fills with.
        package var filler: UInt8 = 0
        /// Which command it belongs to: `finish` ignores those of commands that were reset.
        package var serial: UInt32
    }
    /// How it ended.
    package enum Outcome: Sendable, Equatable {
        /// The sector went over; with `isTerminal` the DMA count is over too.
        case done(isTerminal: Bool)
        /// The DMA channel took or gave less.
        case overrun
        /// The image could not be read or written.
        case failed
    }
    enum Phase: UInt8, Sendable { case command, execution, result }

    var digitalOutput: UInt8 = 0x0C
    var tapeDrive: UInt8 = 0, rate: UInt8 = 0
    var phase = Phase.command
    /// Bytes of the command so far, or of the result not read yet.
    var bytes = PS2Queue()
    var command: UInt8 = 0, expected = 0
    var drives: [2 of Drive] = [2 of Drive](repeating: Drive())
    /// The interrupt, which the digital output register may hold back.
    var hasInterrupt = false
    /// Drives (bits 0 to 3) whose "ready changed" after a reset SENSE INTERRUPT STATUS has still to tell; ST0 of a
    /// seek.
    var polled: UInt8 = 0
    var seekStatus: UInt8?
    /// SPECIFY, CONFIGURE (second and third byte), LOCK, PERPENDICULAR MODE.
    var specify: (UInt8, UInt8) = (0, 0)
    var configuration: UInt8 = defaultConfiguration, precompensation: UInt8 = 0
    var isLocked = false
    var perpendicular: UInt8 = 0
    /// The transfer under way.
    var transfer = Transfer()
    var serial: UInt32 = 0

    static let defaultConfiguration: UInt8 = 0x20
    static let impliedSeek: UInt8 = 0x40

    struct Transfer: Sendable {
        var drive = 0
        var cylinder: UInt8 = 0, head: UInt8 = 0, sector: UInt8 = 0, sizeCode: UInt8 = 0, last: UInt8 = 0
        var isMultiTrack = false
        var kind = Operation.Kind.read
        /// Format: sectors left, and the filler.
        var left = 0
        var filler: UInt8 = 0
    }

    /// `drivesPresent`: how many of the two drives are attached.
    package init(drivesPresent: Int = 1) {
        for index in 0..<Self.driveCount { drives[index].isPresent = index < drivesPresent }
    }

    /// IRQ 6.
    package var isInterrupting: Bool { hasInterrupt && digitalOutput & DigitalOutput.interruptAndDMA != 0 }
    package var isExecuting: Bool { phase == .execution }
    private var isInReset: Bool { digitalOutput & DigitalOutput.notReset == 0 }

    // MARK: Disks

    /// A disk is put in, or taken out with nil.
    package mutating func setDisk(_ disk: Disk?, drive: Int) {
        guard (0..<Self.driveCount).contains(drive) else { return }
        drives[drive].disk = disk
        drives[drive].isChanged = true
        drives[drive].passing = 1
    }

    mutating func move(_ drive: Int, to cylinder: UInt8) {
        drives[drive].cylinder = cylinder
        if drives[drive].disk != nil { drives[drive].isChanged = false }
    }

    // MARK: Registers

    package mutating func read(_ register: UInt64) -> UInt8 {
        switch register {
        case Register.digitalOutput: return digitalOutput
        case Register.tapeDrive: return tapeDrive
        case Register.mainStatus:
            guard !isInReset else { return 0 }
            switch phase {
            case .command: return MainStatus.request | (bytes.isEmpty ? 0 : MainStatus.busy)
            case .execution: return MainStatus.busy
            case .result: return MainStatus.request | MainStatus.toHost | MainStatus.busy
            }
        case Register.fifo:
            guard phase == .result, let byte = bytes.popFirst() else { return 0 }
            hasInterrupt = false
            if bytes.isEmpty { phase = .command }
            return byte
        case Register.digitalInput:
            let drive = Int(digitalOutput & DigitalOutput.driveSelect)
            guard drive < Self.driveCount, digitalOutput & 0x10 << UInt8(drive) != 0 else { return 0 }
            return drives[drive].isPresent && drives[drive].isChanged ? 0x80 : 0
        // Status registers A and B are not there in PC/AT mode.
        default: return 0xFF
        }
    }

    /// A sector to move, where the write begins a transfer.
    package mutating func write(_ register: UInt64, _ value: UInt8) -> Operation? {
        switch register {
        case Register.digitalOutput:
            let wasInReset = isInReset
            digitalOutput = value
            if isInReset { stop() } else if wasInReset { beReady() }
        case Register.tapeDrive: tapeDrive = value & 0x03
        // Data rate select register: bit 7 resets and clears itself.
        case Register.mainStatus:
            rate = value & 0x03
            if value & 0x80 != 0, !isInReset {
                stop()
                beReady()
            }
        case Register.fifo:
            guard !isInReset, phase == .command else { return nil }
            return take(value)
        case Register.digitalInput: rate = value & 0x03
        default: break
        }
        return nil
    }

    private mutating func stop() {
        phase = .command
        bytes = PS2Queue()
        hasInterrupt = false
        polled = 0
        seekStatus = nil
        serial &+= 1
        guard !isLocked else { return }
        configuration = Self.defaultConfiguration
        precompensation = 0
    }

    /// After a reset the controller polls its drives, finds each "changed" and interrupts (§7.4).
    private mutating func beReady() {
        polled = 0x0F
        hasInterrupt = true
    }

    private mutating func take(_ byte: UInt8) -> Operation? {
        if bytes.isEmpty {
            command = byte
            expected = 1 + Self.parameterCount(of: byte)
        }
        bytes.append(byte)
        guard bytes.count >= expected else { return nil }
        _ = bytes.popFirst()
        let parameters = bytes
        bytes = PS2Queue()
        return execute(parameters)
    }

    mutating func answer(_ result: PS2Queue, interrupting: Bool = false) {
        bytes = result
        phase = .result
        if interrupting { hasInterrupt = true }
    }
}
