// Ports for those who debug a guest: the debug console at 0xE9 and 0x402, and the port that ends the program (0xF4).
//
//     ports.attach(DebugConsole(output: log), at: 0x402, count: 1)
//     ports.attach(DebugExit { code in driver.exit(code) }, at: 0xF4, count: 4)
package import MachineCore

/// A port whose bytes are a log. SeaBIOS and OVMF write to it where a read gives 0xE9.
package final class DebugConsole: BusDevice {
    package static let signature: UInt64 = 0xE9
    private let output: any SerialOutput

    /// `output` is called on vCPU threads, with bytes at whatever rate the guest likes: it bounds what it keeps.
    package init(output: any SerialOutput) { self.output = output }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { Self.signature }

    /// A wider access is as many bytes, lowest first.
    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        for index in 0..<UInt64(width.byteCount) { output.write(UInt8(truncatingIfNeeded: value >> (index * 8))) }
    }
}

/// Tests inside the guest end the program with their result: a value written becomes exit code (value << 1) | 1, which
/// is never 0.
package final class DebugExit: BusDevice {
    private let exit: @Sendable (UInt32) -> Void

    /// `exit` is told the code, on a vCPU thread; it may be told again before the program has ended.
    package init(exit: @escaping @Sendable (_ code: UInt32) -> Void) { self.exit = exit }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0 }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset == 0 else { return }
        exit(UInt32(truncatingIfNeeded: value) << 1 | 1)
    }
}
