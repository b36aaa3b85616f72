// Images in a format of their own become raw disks on their way into the cache: qcow2, VMDK, VHD, VHDX and VDI, each read as the
// format that its record names. An image that stands on another one is refused: whose file would that be?
import ComputeDriver
import DiskImage
import Glibc
import HostSystem

enum ImageConversion {
    /// Glance's disk_format of what can be converted.
    static let formats = ["qcow2", "vmdk", "vhd", "vhdx", "vdi"]
    /// Beyond it a size is a mistake or malice.
    private static let byteLimit: UInt64 = 64 << 40

    /// An open image, read only. The file stays its owner's.
    static func open(_ file: borrowing Descriptor, format name: String, imageID: String) throws -> any BlockingImage {
        guard formats.contains(name), let format = DiskImage.ImageFormat(rawValue: name) else {
            throw refusal(imageID, "its disk format \(name.prefix(32)) cannot be converted")
        }
        let copy = try file.duplicate(named: "image \(imageID)")
        let image: any BlockingImage
        do throws(ImageError) {
            image = try format.open(owning: copy, named: "image \(imageID)", isReadOnly: true)
        } catch {
            if case .host = error.code { throw HostFailure("read", "image \(imageID)", errno: error.errno) }
            // Refused is what names a backing file: whose path it is must not be tried out with our answers.
            throw error.code == .refused
                ? refusal(imageID, "it stands on a backing image, which is not allowed")
                : refusal(imageID, "as \(name) it cannot be read: \(error.reason)")
        }
        guard image.byteCount > 0, image.byteCount <= byteLimit else {
            throw refusal(imageID, "its disk has \(image.byteCount) bytes")
        }
        return image
    }

    /// Writes the image's disk to the new file `path`, holes where it is zero. `isCancelled` is asked between pieces. On failure there is no file.
    static func convert(
        _ image: any BlockingImage, imageID: String, to path: String, isCancelled: () -> Bool
    ) throws {
        let target = try Descriptor(opening: path, O_RDWR | O_CREAT | O_EXCL)
        do {
            guard ftruncate(target.rawValue, off_t(clamping: image.byteCount)) == 0 else {
                throw HostFailure("grow disk", path)
            }
            let copy = try target.duplicate(named: path)
            do throws(ImageError) {
                let disk = try DiskImage.ImageFormat.raw.open(owning: copy, named: path, isReadOnly: false)
                let mirror = try MirrorImage(of: image, to: disk)
                var goesOn = true
                while goesOn, !isCancelled() { goesOn = try mirror.step() }
            } catch {
                switch error.code {
                case .malformed, .unsupported, .refused: throw refusal(imageID, error.reason)
                case .host, .full: throw HostFailure("write", path, errno: error.errno)
                }
            }
            if isCancelled() { throw CancellationError() }
            guard fsync(target.rawValue) == 0 else { throw HostFailure("write", path) }
        } catch {
            unsafe unlink(path)
            throw error
        }
    }

    private static func refusal(_ imageID: String, _ reason: String) -> DriverError {
        DriverError(novaClass: "ImageUnacceptable", tenantMessage: "Image \(imageID) is unacceptable: \(reason).", fault: .caller)
    }
}
