// Transfers that run outside of an image's lock, and how the lock's holder waits until those under way are over.
import Glibc

/// A transfer enters with the image's lock held and leaves without it; whoever waits holds the lock, so nobody new enters.
@safe final class TransfersInFlight: @unchecked Sendable {
    // @unchecked: a POSIX lock is made for many threads. It stays at one address.
    private let lock: UnsafeMutablePointer<pthread_rwlock_t>

    init() {
        unsafe lock = .allocate(capacity: 1)
        // SAFETY: fresh memory of the right type; default attributes cannot fail.
        unsafe pthread_rwlock_init(lock, nil)
    }

    deinit {
        // SAFETY: made in init; no transfer outlives the image.
        unsafe pthread_rwlock_destroy(lock)
        unsafe lock.deallocate()
    }

    func enter() { unsafe _ = pthread_rwlock_rdlock(lock) }
    /// In the thread that entered.
    func leave() { unsafe _ = pthread_rwlock_unlock(lock) }

    func waitUntilOver() {
        unsafe _ = pthread_rwlock_wrlock(lock)
        unsafe _ = pthread_rwlock_unlock(lock)
    }
}
