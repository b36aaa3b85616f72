// POSIX pieces of a connection: its thread, the eventfd that wakes it, and poll.
import CRabbitMQ
import Glibc

/// An eventfd: any thread wakes the one that polls it.
struct WakeUp: ~Copyable, Sendable {
    let descriptor: Int32

    init?() {
        descriptor = apus_amqp_wake_up_new()
        guard descriptor >= 0 else { return nil }
    }

    deinit { _ = Glibc.close(descriptor) }

    func signal() {
        apus_amqp_wake_up(descriptor)
    }

    func clear() {
        apus_amqp_wake_up_clear(descriptor)
    }

    /// Waits until this is signalled or `socket` can be read. False for neither in time.
    func wait(orReadable socket: Int32?, timeout: Duration) -> (isReadable: Bool, isSignalled: Bool) {
        var descriptors = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
        if let socket { descriptors.append(pollfd(fd: socket, events: Int16(POLLIN), revents: 0)) }
        let (seconds, attoseconds) = timeout.components
        let milliseconds = max(0, seconds * 1000 + attoseconds / 1_000_000_000_000_000)
        // SAFETY: the array lives for the call and has the count passed.
        let ready = unsafe descriptors.withUnsafeMutableBufferPointer {
            unsafe poll($0.baseAddress, nfds_t($0.count), Int32(clamping: milliseconds + 1))
        }
        guard ready > 0 else { return (false, false) }
        return (descriptors.count > 1 && descriptors[1].revents != 0, descriptors[0].revents != 0)
    }
}

/// Starts `body` on a detached thread of its own: it blocks in the C library, so it stays off the cooperative pool.
func startConnectionThread(_ body: @escaping @Sendable () -> Void) -> Bool {
    final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
    var attributes = pthread_attr_t()
    var thread = pthread_t()
    // SAFETY: the attributes live for the call; the thread takes the retained box over exactly once.
    unsafe pthread_attr_init(&attributes)
    defer { unsafe pthread_attr_destroy(&attributes) }
    unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    unsafe pthread_attr_setstacksize(&attributes, 512 << 10)
    let box = unsafe Unmanaged.passRetained(Body(body))
    let status = unsafe pthread_create(
        &thread, &attributes,
        { argument in
            guard let argument = unsafe argument else { return nil }
            let body = unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
            // A broken TLS connection raises SIGPIPE in the thread that writes; other signals belong to the program.
            var signals = sigset_t()
            unsafe sigfillset(&signals)
            unsafe pthread_sigmask(Int32(SIG_BLOCK), &signals, nil)
            apus_amqp_name_thread()
            body.run()
            return nil
        }, box.toOpaque())
    if status != 0 { unsafe box.release() }
    return status == 0
}
