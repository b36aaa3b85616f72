// Unix stream sockets: listening at a path, and bytes with descriptors beside them (SCM_RIGHTS).
import CLinux
import Glibc

/// A stream socket that listens at `path`, for its owner alone. Something that exists there is an error.
package func listenOnUnixSocket(at path: String) throws(HostError) -> OwnedDescriptor {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    let room = MemoryLayout.size(ofValue: address.sun_path)
    guard !bytes.isEmpty, bytes.count < room else {
        throw HostError(
            "listen at", subject: path, errno: ENAMETOOLONG, remedy: "give a path of 1 to \(room - 1) bytes")
    }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { target in unsafe target.copyBytes(from: bytes) }
    let number = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { throw HostError("make", subject: "unix socket", errno: errno) }
    let owned = OwnedDescriptor(owning: number)
    // The file takes its mode from the socket's own, before anybody can connect.
    guard fchmod(number, 0o600) == 0 else { throw HostError("set the mode of", subject: path, errno: errno) }
    // SAFETY: a sockaddr_un is what bind reads for AF_UNIX, with its size.
    let bound = unsafe withUnsafePointer(to: address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            unsafe bind(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
    }
    guard bound == 0, unsafe chmod(path, 0o600) == 0, listen(number, 16) == 0 else {
        throw HostError("listen at", subject: path, errno: errno)
    }
    return owned
}

/// What one receive brought.
package enum SocketArrival: Sendable {
    case bytes([UInt8], descriptors: [CInt])
    case nothing
    /// The peer has gone, or the connection broke.
    case ended
}

/// Receives without waiting. The caller owns the descriptors.
package func receiveFromSocket(_ socket: CInt, upTo byteCount: Int) -> SocketArrival {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    var descriptors = [CInt](repeating: -1, count: 16)
    var count = CInt(descriptors.count)
    // SAFETY: both buffers have the sizes that are passed with them.
    let got = unsafe apus_receive(socket, &bytes, bytes.count, &descriptors, &count)
    if got < 0 { return errno == EAGAIN || errno == EINTR ? .nothing : .ended }
    let came = Array(descriptors.prefix(Int(count)))
    // A message of descriptors alone cannot come on a stream socket, so 0 is the end.
    guard got > 0 else {
        for descriptor in came { _ = close(descriptor) }
        return .ended
    }
    return .bytes(Array(bytes.prefix(got)), descriptors: came)
}

/// Sends what the socket takes without waiting; nil where the connection broke.
package func sendToSocket(_ socket: CInt, _ bytes: ArraySlice<UInt8>) -> Int? {
    // SAFETY: reads at most the slice's own bytes.
    let sent = unsafe bytes.withUnsafeBytes {
        unsafe send(socket, $0.baseAddress, $0.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
    if sent >= 0 { return sent }
    return errno == EAGAIN || errno == EINTR ? 0 : nil
}

/// Sends bytes with a descriptor beside them, waiting where the socket does. False where it failed.
package func sendToSocket(_ socket: CInt, _ bytes: [UInt8], with descriptor: CInt) -> Bool {
    // SAFETY: reads the array's own bytes.
    unsafe apus_send_with_descriptor(socket, bytes, bytes.count, descriptor) == bytes.count
}
