// What tests of devices build machines from: message interrupts that are counted.
package import MachineCore
package import Synchronization

package final class RecordedInterrupt: MessageInterrupt {
    package let count = Atomic<Int>(0)
    package let message = Mutex<InterruptMessage?>(nil)
    package func setMessage(_ value: InterruptMessage?) throws(AcceleratorError) { message.withLock { $0 = value } }
    package func trigger() { count.wrappingAdd(1, ordering: .relaxed) }
    package var eventDescriptor: CInt? { nil }
}

package final class RecordedInterrupts: MessageInterruptFactory {
    package let made = Mutex<[RecordedInterrupt]>([])
    package init() {}
    package func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt {
        let interrupt = RecordedInterrupt()
        made.withLock { $0.append(interrupt) }
        return interrupt
    }
    package func count(_ vector: Int) -> Int { made.withLock { $0[vector].count.load(ordering: .relaxed) } }
}
