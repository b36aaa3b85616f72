// Locks that keep two programs from one image: open file description locks (fcntl(2)) on the bytes that QEMU locks, so that its
// tools refuse an image that is in use here, and the other way round. They are advice: nobody else is kept out.
//
// A byte from 100 on says "I do this", a byte from 200 on says "nobody else may do this" (QEMU block/file-posix.c). All are read
// locks; whether somebody contradicts is asked with a write lock that is never taken.
import CLinux
import Glibc

package enum ImageLock {
    /// Permissions by their bit.
    private enum Permission {
        static let consistentRead: off_t = 0
        static let write: off_t = 1
        static let resize: off_t = 3
    }
    private static let doing: off_t = 100
    private static let forbidding: off_t = 200
    // Not in Glibc's module: F_OFD_GETLK, F_OFD_SETLK.
    private static let get: CInt = 36
    private static let set: CInt = 37

    /// Locks the open file: for writing against everybody, for reading against writers. Several readers may be. The locks belong
    /// to the open file description: they stay with `descriptor` wherever it is handed, and end when it is closed.
    /// - Parameters:
    ///   - descriptor: open for reading at least; borrowed.
    ///   - name: for messages only.
    package static func take(on descriptor: CInt, forWriting: Bool, named name: String) throws(ImageError) {
        let permissions = [Permission.consistentRead] + (forWriting ? [Permission.write, Permission.resize] : [])
        let forbidden = [Permission.write, Permission.resize]
        do throws(ImageError) {
            for place in permissions.map({ doing + $0 }) + forbidden.map({ forbidding + $0 }) {
                var lock = flock()
                lock.l_type = Int16(F_RDLCK)
                try apply(&lock, set, descriptor, place, name)
            }
            // Taken first, asked then: of two that come at once at least one sees the other.
            for place in permissions.map({ forbidding + $0 }) + forbidden.map({ doing + $0 }) {
                var lock = flock()
                lock.l_type = Int16(F_WRLCK)
                try apply(&lock, get, descriptor, place, name)
                guard lock.l_type == Int16(F_UNLCK) else {
                    throw ImageError(
                        .refused, "lock image", subject: name, reason: "another program uses it",
                        remedy: "end that program first")
                }
            }
        } catch {
            release(descriptor, named: name)
            throw error
        }
    }

    /// Gives the locks up before the descriptor is closed.
    package static func release(_ descriptor: CInt, named name: String) {
        for place in [doing, forbidding] {
            var lock = flock()
            lock.l_type = Int16(F_UNLCK)
            lock.l_len = 64
            lock.l_start = place
            // SAFETY: reads a local.
            _ = unsafe fcntl(descriptor, set, &lock)
        }
    }

    private static func apply(
        _ lock: inout flock, _ command: CInt, _ descriptor: CInt, _ place: off_t, _ name: String
    ) throws(ImageError) {
        lock.l_whence = Int16(SEEK_SET)
        lock.l_start = place
        lock.l_len = 1
        // SAFETY: reads and writes the caller's structure.
        guard unsafe fcntl(descriptor, command, &lock) == 0 else {
            if errno == EAGAIN || errno == EACCES {
                throw ImageError(
                    .refused, "lock image", subject: name, reason: "another program uses it",
                    remedy: "end that program first")
            }
            throw ImageError(.host(errno: errno), "lock image", subject: name)
        }
    }
}
