// Waiting for a controller's requests in flight: before its state is saved, and before a reset lets the guest use the memory again.
import Glibc

/// Waits until `isIdle`, at most 30 seconds: longer than a disk that still answers takes. Not on the event loop's thread, which
/// takes the completions.
package func waitUntilIdle(_ isIdle: () -> Bool) -> Bool {
    for _ in 0..<30_000 {
        if isIdle() { return true }
        usleep(1000)
    }
    return isIdle()
}
