// What is plugged into a port of a controller that speaks ATA.
package import DiskImage

package enum AttachedDrive: Sendable {
    case disk(any BlockBackend, DriveIdentity)
    /// A CD or DVD drive with the image in it as a disc of 2048-byte blocks.
    case optical(any BlockBackend, DriveIdentity)

    var backend: any BlockBackend {
        switch self {
        case .disk(let backend, _), .optical(let backend, _): backend
        }
    }
}

extension AttachedDrive {
    /// The register side, and for an optical drive the unit behind it.
    func makeDevice(isSerial: Bool) -> (ATADevice, OpticalUnit?) {
        switch self {
        case .disk(let backend, let identity):
            let device = ATADevice(
                .disk, identity: identity, sectorCount: backend.byteCount / 512, isReadOnly: backend.isReadOnly,
                isSerial: isSerial,
                physicalBlockByteCount: backend.physicalBlockByteCount)
            return (device, nil)
        case .optical(let backend, let identity):
            return (
                ATADevice(.packetDevice, identity: identity, isSerial: isSerial),
                OpticalUnit(identity: identity, byteCount: backend.byteCount)
            )
        }
    }
}
