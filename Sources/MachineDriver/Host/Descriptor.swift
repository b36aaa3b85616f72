// A descriptor with one owner, handed between tasks and closed with the last reference.
import Glibc
import HostSystem

/// An open file descriptor that is closed when its owner goes.
final class Descriptor: Sendable {
    let rawValue: CInt

    /// Takes ownership of `rawValue`, which is open and owned by nobody else.
    init(owning rawValue: CInt) { self.rawValue = rawValue }

    deinit { close(rawValue) }

    /// Opens `path` close-on-exec; `mode` counts where O_CREAT is given.
    convenience init(opening path: String, _ flags: CInt, mode: mode_t = 0o600) throws(HostFailure) {
        // SAFETY: the path lives through the call; with or without O_CREAT a mode is passed.
        let number = unsafe Glibc.open(path, flags | O_CLOEXEC, mode)
        guard number >= 0 else { throw HostFailure(flags & O_CREAT != 0 ? "create" : "open", path) }
        self.init(owning: number)
    }

    /// The same open file under a number of its own, for an owner that closes it.
    /// - Parameter name: for messages.
    func duplicate(named name: String) throws(HostFailure) -> OwnedDescriptor {
        let copy = fcntl(rawValue, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { throw HostFailure("open again", name) }
        return OwnedDescriptor(owning: copy)
    }
}
