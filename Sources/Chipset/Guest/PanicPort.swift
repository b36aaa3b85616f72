// How a guest says that it panicked (QEMU's pvpanic specification): one register at port 0x505, with ACPI id QEMU0001,
// whose bits read as the events understood and are written as those that happened. A PCI function can use it as its BAR
// 0.
//
//     ports.attach(PanicPort { events in driver.guestReports(events) }, at: 0x505, count: 1)
package import MachineCore

/// What happened in the guest.
package struct PanicEvents: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The kernel panicked and is dead.
    package static let panicked = PanicEvents(rawValue: 1)
    /// The kernel panicked and a crash kernel takes over: the guest goes on.
    package static let crashLoaded = PanicEvents(rawValue: 2)
    /// The guest ends in order.
    package static let shutdown = PanicEvents(rawValue: 4)
}

package final class PanicPort: BusDevice {
    private let understood: PanicEvents
    private let report: @Sendable (PanicEvents) -> Void

    /// `report` is called on a vCPU thread, as often as the guest writes.
    package init(
        understood: PanicEvents = [.panicked, .crashLoaded, .shutdown],
        report: @escaping @Sendable (PanicEvents) -> Void
    ) {
        self.understood = understood
        self.report = report
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        offset == 0 ? UInt64(understood.rawValue) : width.allOnes
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset == 0 else { return }
        let events = PanicEvents(rawValue: UInt8(truncatingIfNeeded: value)).intersection(understood)
        if !events.isEmpty { report(events) }
    }
}
