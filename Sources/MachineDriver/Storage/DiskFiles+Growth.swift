// Disks of another size. They grow by a hole and never become smaller: what a guest wrote is not cut off.
import Glibc

extension DiskFiles {
    /// Makes an existing disk at least as large as `byteCount`.
    static func grow(_ path: String, to byteCount: Int64) throws(HostFailure) {
        let file = try Descriptor(opening: path, O_RDWR)
        guard try Files.byteCount(of: file, named: path) < byteCount else { return }
        guard ftruncate(file.rawValue, off_t(byteCount)) == 0 else { throw HostFailure("grow disk", path) }
        guard fsync(file.rawValue) == 0 else { throw HostFailure("write", path) }
    }
}
