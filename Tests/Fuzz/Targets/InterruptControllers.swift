// The software interrupt controllers: two local APICs, I/O APIC, 8259A pair, lines, messages, and processors that take interrupts.
import Chipset
import MachineCore

private final class Processors: InterruptTarget {
    func wake(processor index: Int) {}
    func signal(_ event: LocalAPIC.Event, processor index: Int) {}
}

let interruptControllersTarget = FuzzTarget("interrupt-controllers") { input in
    drive(&input) {
        let rig = Rig()
        let fabric = InterruptFabric(apicIDs: [0, 3], target: Processors(), clock: Bench.clock, timer: Bench.clock.makeTimer())
        rig.add(fabric.ioapicDevice, byteCount: 0x50)
        for ports in fabric.legacyPorts { rig.add(ports.device, byteCount: 2) }
        let lines = (0..<24).map { fabric.line($0) }
        rig.sections = [fabric]
        rig.reset = { fabric.reset() }
        rig.actions = [
            { Bench.clock.advance(&$0) },
            {
                let choice = $0.byte(), line = lines[Int(choice & 0x7F) % lines.count]
                if choice & 0x80 != 0 { line.assert() } else { line.deassert() }
            },
            {
                let processor = $0.below(2), offset = UInt64($0.number(UInt16.self) & 0xFFF)
                fabric.writeLocal(offset, width: .doubleWord, value: UInt64($0.number(UInt32.self)), processor: processor)
            },
            { _ = fabric.readLocal(UInt64($0.number(UInt16.self) & 0xFFF), width: .doubleWord, processor: $0.below(2)) },
            { _ = fabric.writeMSR($0.byte() & 1 != 0 ? 0x1B : 0x800 + UInt32($0.byte() & 0x3F), $0.number(), processor: $0.below(2)) },
            { _ = fabric.readMSR(0x800 + UInt32($0.byte() & 0x3F), processor: $0.below(2)) },
            {
                let processor = $0.below(2), claims = fabric.hasInterrupt(processor: processor)
                if (fabric.acknowledge(processor: processor) != nil) != claims { finding("an interrupt that is announced is not there") }
            },
            { fabric.send(InterruptMessage(address: 0xFEE0_0000 | UInt64($0.number(UInt32.self)), data: $0.number())) },
            { fabric.setDeadline($0.number(), tsc: $0.number(), hertz: UInt64($0.number(UInt32.self)), processor: $0.below(2)) },
            {
                fabric.setCR8($0.number(), processor: $0.below(2))
                _ = fabric.cr8(processor: 0) + fabric.tscDeadline(processor: 1)
            },
            { _ in fabric.pulseNMI() },
        ]
        return rig
    }
}
