// Anonymous memory that has a descriptor, so that it can be mapped, shared and handed to the kernel.
import CLinux
import Glibc

/// Makes an anonymous file of `byteCount` zero bytes, not named anywhere in the file system.
package func makeMemoryFile(named name: String, byteCount: Int) throws(HostError) -> OwnedDescriptor {
    let descriptor = unsafe name.withCString { unsafe apus_memfd_create($0) }
    guard descriptor >= 0 else {
        throw HostError("create memory file", subject: name, errno: errno)
    }
    return try sized(OwnedDescriptor(owning: descriptor), name, byteCount)
}

private func sized(_ file: consuming OwnedDescriptor, _ name: String, _ byteCount: Int) throws(HostError) -> OwnedDescriptor {
    guard ftruncate(file.rawValue, off_t(byteCount)) == 0 else {
        throw HostError("size memory file \(name) to", subject: "\(byteCount) bytes", errno: errno)
    }
    return file
}

/// Makes an anonymous file of huge pages. Pages are reserved where it is mapped, not here.
///
/// - Parameters:
///   - byteCount: a multiple of the pages' size.
///   - pageByteCount: a power of two that the host has pages of, on x86-64 2 MiB or 1 GiB.
package func makeHugeMemoryFile(named name: String, byteCount: Int, pageByteCount: Int) throws(HostError) -> OwnedDescriptor {
    let descriptor = unsafe name.withCString { unsafe apus_memfd_create_huge($0, UInt32(pageByteCount.trailingZeroBitCount)) }
    guard descriptor >= 0 else {
        throw HostError(
            "create memory file of \(pageByteCount >> 20) MiB pages", subject: name, errno: errno,
            remedy: errno == ENODEV || errno == EINVAL || errno == ENOENT ? "this host has no pages of that size; take another size, or none" : "")
    }
    return try sized(OwnedDescriptor(owning: descriptor), name, byteCount)
}
