import GuestMemory
import HostSystem
import MachineTesting
import Testing

@testable import VirtIO

/// Doorbells on a loop that the test serves itself.
@Suite struct DoorbellTests {
    /// Level-triggered: one that stays rung has the loop's thread run for nothing else.
    @Test func theDoorbellOfABrokenQueueDoesNotKeepTheLoopBusy() throws {
        let memory = try GuestMemory(byteCount: 1 << 20), loop = try EventLoop()
        let function = try VirtIOPCIFunction(
            VirtIOEntropy(loop: loop), name: "rng", memory: memory, interrupts: RecordedInterrupts(), doorbells: nil)
        let driver = MockDriver(function: function), queue = MockQueue(memory, index: 0, base: 0x1_0000)
        #expect(driver.negotiate(1 << 32))
        driver.enable(queue, vector: 0)
        driver.status = 15
        try queue.offer(99)
        driver.notify(0)
        func turns() throws -> Int {
            var count = 0
            while count < 10, try loop.serve(waiting: 0) > 0 { count += 1 }
            return count
        }
        #expect(try (1...2).contains(turns()))
        #expect(driver.status & 0x40 != 0)
        driver.notify(0)
        #expect(try turns() == 1)
        function.reset()
    }
}
