// The SCSI command sets by themselves: a disk and a CD, command blocks and parameters from the input.
import GuestMemory
import MachineCore
import Storage

let scsiUnitsTarget = FuzzTarget("scsi-units", 1024) { input in
    var units: [any LogicalUnit] = [
        DiskUnit(identity: DriveIdentity(serial: "disk"), byteCount: 512 << 10, isReadOnly: false, physicalBlockByteCount: 4096),
        OpticalUnit(identity: DriveIdentity(serial: "disc"), byteCount: 64 << 10),
    ]
    while !input.isEmpty {
        let choice = input.byte(), index = Int(choice & 1)
        if choice >> 1 == 0x7F { units[index].reset() }
        if choice >> 1 == 0x7E { carryOver(&units[index]) }
        let block = CommandBlock(input.take([6, 10, 12, 16][Int(choice >> 1 & 3)]))
        let wanted = units[index].parameterByteCount(of: block)
        if wanted > 65536 { finding("\(wanted) bytes of parameters") }
        switch units[index].perform(block, parameters: input.take(min(wanted, Int(choice >> 3)))) {
        case .good, .failed: break
        case .data(let data): if data.count > 65536 { finding("\(data.count) bytes of data") }
        case .work(let work):
            check(work, byteCount: index == 0 ? 512 << 10 : 64 << 10)
            _ = units[index].end(of: work, errno: choice & 0x80 != 0 ? 5 : 0)
        }
        if choice & 0x40 != 0 { _ = units[index].takeSense() }
    }
}

private func check(_ work: DiskWork, byteCount: UInt64) {
    let ranges: [ByteRange] =
        switch work {
        case .read(let offset, let count): [ByteRange(offset: offset, byteCount: UInt64(count))]
        case .write(let offset, let count, _): [ByteRange(offset: offset, byteCount: UInt64(count))]
        case .flush: []
        case .discard(let ranges), .writeZeroes(let ranges, _): ranges
        }
    for range in ranges where range.byteCount > byteCount || range.offset > byteCount - range.byteCount {
        finding("work outside of the image: \(range)")
    }
}

private func carryOver(_ unit: inout any LogicalUnit) {
    var writer = StateWriter(), again = StateWriter()
    unit.save(into: &writer)
    var reader = StateReader(section: "unit", bytes: writer.bytes)
    do throws(DeviceStateError) { try unit.restore(from: &reader) } catch { finding("the unit refuses its own state: \(error)") }
    unit.save(into: &again)
    if again.bytes != writer.bytes { finding("the unit's state changes on its way") }
}
