// A file descriptor with exactly one owner: closed when the owner goes, handed on by consuming.
import Glibc

/// An open file descriptor that is closed when its owner goes away.
package struct OwnedDescriptor: ~Copyable, Sendable {
    /// The number for system calls. Borrow it; never close it.
    package let rawValue: CInt

    /// Takes ownership of `rawValue`, which must be open and owned by nobody else.
    package init(owning rawValue: CInt) {
        self.rawValue = rawValue
    }

    deinit {
        _ = close(rawValue)
    }

    /// Gives the descriptor up without closing it.
    package consuming func release() -> CInt {
        let value = rawValue
        discard self
        return value
    }
}
