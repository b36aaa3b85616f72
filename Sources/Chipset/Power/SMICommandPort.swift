// The ports of advanced power management (ICH9 §13.7.3): APM_CNT at 0xB2, whose writes make an SMI, and APM_STS at
// 0xB3, a byte that software passes beside it. An OS writes the FADT's ACPI_ENABLE or ACPI_DISABLE to the first.
//
//     ports.attach(SMICommandPort(powerManagement) { command in board.raiseSMI(command) }, at: 0xB2, count: 2)
package import MachineCore
import Synchronization

package final class SMICommandPort: BusDevice, SavableDevice {
    package static let stateVersion: UInt32 = 1
    package var stateName: String { "apm" }
    package static let acpiEnable: UInt8 = 0x02, acpiDisable: UInt8 = 0x03
    private let enable: UInt8, disable: UInt8
    private let powerManagement: PowerManagement
    private let onCommand: (@Sendable (UInt8) -> Void)?
    private let bytes = Mutex<(command: UInt8, status: UInt8)>((0, 0))

    /// `enable` and `disable` are the commands that the board's FADT names. `onCommand` is told each command, on the vCPU thread that wrote it, with no lock held; whether it becomes an SMI
    /// is for SMI_EN to say, elsewhere. ACPI mode follows the two commands in either case.
    package init(
        _ powerManagement: PowerManagement, enable: UInt8 = acpiEnable, disable: UInt8 = acpiDisable,
        onCommand: (@Sendable (UInt8) -> Void)? = nil
    ) {
        self.enable = enable
        self.disable = disable
        self.powerManagement = powerManagement
        self.onCommand = onCommand
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        let (command, status) = bytes.withLock { $0 }
        return switch offset {
        case 0: UInt64(command) | UInt64(status) << 8
        case 1: UInt64(status)
        default: width.allOnes
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let byte = UInt8(truncatingIfNeeded: value)
        bytes.withLock {
            switch offset {
            case 0:
                $0.command = byte
                if width != .byte { $0.status = UInt8(truncatingIfNeeded: value >> 8) }
            case 1: $0.status = byte
            default: break
            }
        }
        guard offset == 0 else { return }
        if byte == enable { powerManagement.setACPIMode(true) }
        if byte == disable { powerManagement.setACPIMode(false) }
        onCommand?(byte)
    }

    package func reset() { bytes.withLock { $0 = (0, 0) } }

    package func saveState(into writer: inout StateWriter) {
        let (command, status) = bytes.withLock { $0 }
        writer.write(command)
        writer.write(status)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let command: UInt8 = try reader.read(), status: UInt8 = try reader.read()
        bytes.withLock { $0 = (command, status) }
    }
}
