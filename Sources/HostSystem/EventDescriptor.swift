// eventfd: a counter in the kernel that one side adds to and the other waits for; KVM and vhost take them as doorbells.
import CLinux
import Glibc

/// An eventfd. Any thread may signal it.
package struct EventDescriptor: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    package init() throws(HostError) {
        let number = eventfd(0, CInt(EFD_CLOEXEC | EFD_NONBLOCK))
        guard number >= 0 else { throw HostError("create", subject: "eventfd", errno: errno) }
        descriptor = OwnedDescriptor(owning: number)
    }

    /// The number for epoll, KVM and vhost.
    package var rawValue: CInt { descriptor.rawValue }

    /// Adds one. A counter that is full is signalled already.
    package borrowing func signal() {
        var one: UInt64 = 1
        // SAFETY: eight bytes from a local.
        _ = unsafe write(descriptor.rawValue, &one, 8)
    }

    /// Takes what was added since the last time; 0 where nothing was.
    @discardableResult
    package borrowing func drain() -> UInt64 {
        var value: UInt64 = 0
        // SAFETY: eight bytes into a local.
        return unsafe read(descriptor.rawValue, &value, 8) == 8 ? value : 0
    }
}
