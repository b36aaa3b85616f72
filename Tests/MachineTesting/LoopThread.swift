// An event loop that runs beside a test, and a wait for what happens on it.
import Foundation
import HostSystem

/// Runs a loop on a thread of its own until it goes away.
package final class LoopThread {
    package let loop: EventLoop
    package init() throws {
        let loop = try EventLoop()
        self.loop = loop
        Thread { try? loop.run() }.start()
    }
    deinit { loop.stop() }
}

/// Polls until `condition` holds, at most five seconds.
package func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = Date().addingTimeInterval(5)
    while Date() < deadline {
        if try condition() { return true }
        usleep(200)
    }
    return try condition()
}
