// Named POSIX threads: vCPUs and I/O loops block in the kernel, so they own a thread each.
import CLinux
import Glibc

/// A running thread that can be waited for once.
@safe package struct Thread: ~Copyable, @unchecked Sendable {
    // @unchecked: a pthread_t is a number that any thread may join.
    private let handle: pthread_t

    private final class Body {
        let name: String
        let run: @Sendable () -> Void
        init(name: String, run: @escaping @Sendable () -> Void) {
            self.name = name
            self.run = run
        }
    }

    /// Starts `body` on a thread of this name (the kernel shows its first 15 bytes).
    package init(named name: String, body: @escaping @Sendable () -> Void) throws(HostError) {
        var handle = pthread_t()
        let box = unsafe Unmanaged.passRetained(Body(name: name, run: body))
        // SAFETY: the thread takes the retained box over exactly once.
        let result = unsafe pthread_create(
            &handle, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let body = unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                _ = unsafe apus_name_thread(body.name)
                body.run()
                return nil
            }, box.toOpaque())
        guard result == 0 else {
            unsafe box.release()
            throw HostError("start thread", subject: name, errno: result)
        }
        self.handle = handle
    }

    /// Waits for the thread's end.
    package consuming func join() {
        _ = pthread_join(handle, nil)
    }
}

/// A value behind a lock that threads can wait on.
@safe package final class Monitor<Value: Sendable>: @unchecked Sendable {
    // @unchecked: `value` is touched under `mutex` only; mutex and condition are allocated once and never move.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var value: Value

    package init(_ value: Value) {
        self.value = value
        // SAFETY: freshly allocated, initialised here before any use.
        _ = unsafe pthread_mutex_init(mutex, nil)
        _ = unsafe pthread_cond_init(condition, nil)
    }

    deinit {
        // SAFETY: no thread can hold a reference any more.
        _ = unsafe pthread_mutex_destroy(mutex)
        _ = unsafe pthread_cond_destroy(condition)
        unsafe mutex.deallocate()
        unsafe condition.deallocate()
    }

    /// Reads and changes the value, then wakes every waiter.
    @discardableResult
    package func update<Result>(_ body: (inout Value) -> Result) -> Result {
        _ = unsafe pthread_mutex_lock(mutex)
        defer {
            _ = unsafe pthread_cond_broadcast(condition)
            _ = unsafe pthread_mutex_unlock(mutex)
        }
        return body(&value)
    }

    /// Waits until `body` gives a result.
    package func wait<Result>(_ body: (inout Value) -> Result?) -> Result {
        _ = unsafe pthread_mutex_lock(mutex)
        defer { _ = unsafe pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&value) { return result }
            _ = unsafe pthread_cond_wait(condition, mutex)
        }
    }
}
