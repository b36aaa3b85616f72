// Opening an image in the format that its owner says it has. The content is never asked: a guest could write a header into a
// raw disk and have its host read other files (CVE-2024-32498, CVE-2024-40767).
package import HostSystem

/// The formats that can be opened, by the names that Glance and Nova have for them.
package enum ImageFormat: String, Sendable, CaseIterable {
    case raw
    /// Raw, and only read.
    case iso
    case qcow2
    case vmdk
    case vhd
    case vhdx
    case vdi

    /// Formats other than raw and qcow2 are only read.
    package var isWritable: Bool { self == .raw || self == .qcow2 }
    /// Whether an image of this format may have a backing image.
    package var takesBacking: Bool { self == .qcow2 }

    /// Usage: try ImageFormat.qcow2.open(owning: descriptor, named: "vda", isReadOnly: false, backing: base)
    /// - Parameters:
    ///   - descriptor: open for writing too unless `isReadOnly`.
    ///   - name: for messages only.
    ///   - backing: exactly where the image's header names one.
    package func open(
        owning descriptor: consuming OwnedDescriptor, named name: String, isReadOnly: Bool,
        backing: (any BlockingImage)? = nil
    ) throws(ImageError) -> any BlockingImage {
        guard isReadOnly || isWritable else {
            throw ImageError(
                .refused, "open \(rawValue) image for writing", subject: name, reason: "the format is only read",
                remedy: "convert it to qcow2 or raw")
        }
        guard backing == nil || takesBacking else {
            throw ImageError(
                .refused, "open \(rawValue) image", subject: name,
                reason: "a backing image came with it, which the format has not")
        }
        if self == .raw || self == .iso {
            do throws(HostError) {
                return try RawImage(owning: descriptor, named: name, isReadOnly: isReadOnly)
            } catch {
                throw ImageError(error)
            }
        }
        let file = try DescriptorFile(owning: descriptor, named: name)
        switch self {
        case .raw, .iso, .qcow2: return try QCOW2Image(file: file, isReadOnly: isReadOnly, backing: backing)
        case .vmdk: return ImportedImage(file: file, map: try VMDKMap(file: file))
        case .vhd: return ImportedImage(file: file, map: try VHDMap(file: file))
        case .vhdx: return ImportedImage(file: file, map: try VHDXMap(file: file))
        case .vdi: return ImportedImage(file: file, map: try VDIMap(file: file))
        }
    }
}
