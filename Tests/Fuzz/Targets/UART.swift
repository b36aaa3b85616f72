// The serial port, with somebody at its other end.
import Chipset

private final class Sink: SerialOutput {
    func write(_ byte: UInt8) {}
}

let uartTarget = FuzzTarget("uart", 512) { input in
    drive(&input) {
        let rig = Rig()
        let uart = SerialPort(name: "uart", line: Bench.line, output: Sink())
        rig.add(uart, byteCount: 8)
        rig.sections = [uart]
        rig.reset = { uart.reset() }
        rig.actions = [
            {
                let bytes = $0.take(Int($0.byte() & 31))
                let taken = uart.receive(bytes)
                if taken > bytes.count { finding("\(taken) bytes taken of \(bytes.count)") }
            }
        ]
        return rig
    }
}
