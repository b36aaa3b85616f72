import HostSystem
import Synchronization
import Testing

struct ThreadTests {
    @Test func threadRunsItsBodyBeforeJoinReturns() throws {
        let monitor = Monitor(0)
        let thread = try Thread(named: "a-name-of-more-than-15-bytes") { monitor.update { $0 = 7 } }
        thread.join()
        #expect(monitor.update { $0 } == 7)
    }

    @Test func waiterIsWokenByAnUpdate() throws {
        let monitor = Monitor(0)
        let thread = try Thread(named: "waiter") { monitor.update { $0 = 1 } }
        #expect(monitor.wait { $0 == 1 ? "woken" : nil } == "woken")
        thread.join()
    }

    @Test func eventLoopCallsTheHandlerOfASignalledDescriptorAndStops() throws {
        let loop = try EventLoop()
        let event = try EventDescriptor()
        let calls = Monitor(0)
        let number = event.rawValue
        try loop.add(number, for: .readable) { _ in
            calls.update { $0 += 1 }
            loop.stop()
        }
        event.signal()
        try loop.run()
        #expect(calls.update { $0 } == 1)
        #expect(event.drain() == 1)
    }
}
