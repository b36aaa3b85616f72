// A SCSI target with one logical unit, LUN 0, and what every target answers by itself (SPC-3 §6.4.1, §6.21): wrong LUNs and the list of
// the right ones.
package import DiskImage
package import MachineCore
import Synchronization

/// Any thread: the unit is behind a lock that is held for the length of one decision, never over I/O.
package final class SCSITarget: Sendable {
    package let backend: any BlockBackend
    package let counters = DeviceCounters()
    private let unit: Mutex<any LogicalUnit>

    package init(disk backend: any BlockBackend, identity: DriveIdentity) {
        self.backend = backend
        unit = Mutex(
            DiskUnit(
                identity: identity, byteCount: backend.byteCount, isReadOnly: backend.isReadOnly,
                physicalBlockByteCount: backend.physicalBlockByteCount))
    }

    package init(optical backend: any BlockBackend, identity: DriveIdentity) {
        self.backend = backend
        unit = Mutex(OpticalUnit(identity: identity, byteCount: backend.byteCount))
    }

    package func parameterByteCount(of block: CommandBlock, lun: UInt16) -> Int {
        lun == 0 ? unit.withLock { $0.parameterByteCount(of: block) } : 0
    }

    package func perform(_ block: CommandBlock, lun: UInt16, parameters: [UInt8]) -> SCSIAnswer {
        if block.operation == SCSIOperation.reportLUNs {
            guard block[2] <= 2 else { return .failed(.invalidField) }
            // One entry, LUN 0; of the well-known units there are none.
            let list = block[2] == 1 ? [] : [UInt8](repeating: 0, count: 8)
            return .data(
                Array(
                    (bigEndian(UInt64(list.count), 4) + [0, 0, 0, 0] + list).prefix(Int(clamping: block.field(6, 4)))))
        }
        guard lun == 0 else {
            switch block.operation {
            case SCSIOperation.inquiry:
                // Peripheral qualifier 3: no unit can be here.
                return .data(
                    Array(
                        ([0x7F, 0, 0x05, 0x02, 31] + [UInt8](repeating: 0, count: 31)).prefix(Int(block.field(3, 2)))))
            case SCSIOperation.requestSense:
                return .data(Array(SenseData.logicalUnitNotSupported.bytes.prefix(Int(block[4]))))
            default: return .failed(.logicalUnitNotSupported)
            }
        }
        return unit.withLock { $0.perform(block, parameters: parameters) }
    }

    /// The sense goes along with the command's status: the unit does not keep it.
    package func clearSense() { unit.withLock { _ = $0.takeSense() } }

    package func end(of work: DiskWork, errno: Int32) -> SenseData? {
        unit.withLock { unit in
            defer { _ = unit.takeSense() }
            return unit.end(of: work, errno: errno)
        }
    }

    package func reset() { unit.withLock { $0.reset() } }

    /// The image was grown. True where the host is to be told.
    package func capacityChanged() -> Bool {
        unit.withLock { unit in
            guard var disk = unit as? DiskUnit else { return false }
            disk.setByteCount(backend.byteCount)
            unit = disk
            return true
        }
    }

    package func save(into writer: inout StateWriter) { unit.withLock { $0.save(into: &writer) } }

    package func restore(from reader: inout StateReader) throws(DeviceStateError) {
        var restored = unit.withLock { $0 }
        try restored.restore(from: &reader)
        unit.withLock { [restored] in $0 = restored }
    }
}
