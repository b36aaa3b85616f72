// errno to text without Foundation.
import Glibc

/// The C library's words for an errno, with the number.
package func errorName(_ errno: CInt) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    // SAFETY: strerror_r (POSIX) writes at most `count` bytes, terminated; we read up to the terminator only.
    let text = unsafe buffer.withUnsafeMutableBufferPointer { pointer -> String in
        guard let base = pointer.baseAddress, unsafe strerror_r(errno, base, pointer.count) == 0 else { return "" }
        return unsafe String(cString: base)
    }
    return "\(text) (errno \(errno))"
}
