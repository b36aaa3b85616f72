// The one-byte ports that reset a PC: system control port A at 0x92 and the reset control register at 0xCF9 (ICH9 §13.7).
// The third way, the keyboard controller's pulse of the reset line, is `KeyboardController`.
package import MachineCore
import Synchronization

/// A port whose writes can reset the machine.
package final class ResetPort: BusDevice, SavableDevice {
    /// `keyboardController` is port 0x64's reset alone, for a board without a `KeyboardController`.
    package enum Kind: String, Sendable { case keyboardController = "i8042", systemControl = "port 0x92", resetControl = "0xCF9" }
    private let kind: Kind
    private let power: any PowerRequests
    private let value: Mutex<UInt8>

    package init(_ kind: Kind, power: any PowerRequests) {
        self.kind = kind
        self.power = power
        // Port 0x92 bit 1: A20 is on, and stays so whatever is written: the accelerator has no A20 gate.
        value = Mutex(kind == .systemControl ? 2 : 0)
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { UInt64(value.withLock { $0 }) }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let byte = UInt8(truncatingIfNeeded: value)
        let resets =
            switch kind {
            case .keyboardController: offset == 4 && byte == 0xFE
            case .systemControl: byte & 1 != 0
            case .resetControl: byte & 4 != 0
            }
        // SYS_RST, FULL_RST and the unused bits read back; the bit that resets does not.
        if kind == .resetControl { self.value.withLock { $0 = byte & 0x0A } }
        if resets { power.guestRequestsReset(by: kind.rawValue) }
    }

    package func reset() { value.withLock { $0 = kind == .systemControl ? 2 : 0 } }

    // MARK: Saved state

    package static let stateVersion: UInt32 = 1
    package var stateName: String {
        switch kind {
        case .keyboardController: "reset@64"
        case .systemControl: "reset@92"
        case .resetControl: "reset@cf9"
        }
    }

    package func saveState(into writer: inout StateWriter) { writer.write(value.withLock { $0 }) }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let byte = try reader.read(UInt8.self)
        value.withLock { $0 = byte & (kind == .resetControl ? 0x0A : 2) }
    }
}
