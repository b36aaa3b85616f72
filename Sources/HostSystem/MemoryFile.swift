// Anonymous memory that has a descriptor, so that it can be mapped, shared and handed to the kernel.
import CLinux
import Glibc

/// Makes an anonymous file of `byteCount` zero bytes, not named anywhere in the file system.
package func makeMemoryFile(named name: String, byteCount: Int) throws(HostError) -> OwnedDescriptor {
    let descriptor = unsafe name.withCString { unsafe apus_memfd_create($0) }
    guard descriptor >= 0 else {
        throw HostError("create memory file", subject: name, errno: errno)
    }
    let owned = OwnedDescriptor(owning: descriptor)
    guard ftruncate(owned.rawValue, off_t(byteCount)) == 0 else {
        throw HostError("size memory file \(name) to", subject: "\(byteCount) bytes", errno: errno)
    }
    return owned
}
