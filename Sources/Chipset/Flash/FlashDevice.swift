// A flash chip in the guest's address space. While it shows its array the guest reads the pages themselves and only writes come
// here; during a command all accesses do.
import GuestMemory
import HostSystem
package import MachineCore
import Glibc
import Synchronization

package final class FlashDevice: BusDevice, SavableDevice {
    package static let stateVersion: UInt32 = 2
    package var stateName: String { "flash" }
    private static let window = 1
    private static let byteLimit = 8 << 20

    private let pages: HostPages
    private let base: GuestAddress
    private let machine: any VirtualMachine
    private struct State: Sendable {
        var chip = CFIFlash()
        var isMapped = false
    }
    private let state = Mutex(State())

    /// A chip whose array is the file's content, written through. The descriptor stays its owner's.
    ///
    /// - Parameter end: where the chip ends in guest memory.
    package init(sharing descriptor: CInt, below end: UInt64, machine: any VirtualMachine, addresses: MemoryBus) throws {
        let length = lseek(descriptor, 0, SEEK_END)
        guard length >= CFIFlash.blockByteCount, length <= Self.byteLimit, Int(length) % CFIFlash.blockByteCount == 0 else {
            throw HostError("use", subject: "the firmware's variables, \(length) bytes", errno: EINVAL, remedy: "give a file of whole 4 KiB blocks, up to 8 MiB")
        }
        pages = try HostPages(sharing: descriptor, byteCount: Int(length), named: "the firmware's variables")
        base = GuestAddress(end - UInt64(length))
        self.machine = machine
        addresses.attach(self, at: base, byteCount: UInt64(length))
        state.withLock { show(&$0) }
    }

    /// Maps the array where the chip shows it and takes it away where not. Nothing to be done about an accelerator that refuses:
    /// accesses then come here.
    private func show(_ state: inout State) {
        let wanted = state.chip.mode == .array
        guard wanted != state.isMapped else { return }
        if wanted {
            state.isMapped = (try? machine.mapWindow(Self.window, pages, at: base, isReadOnly: true)) != nil
        } else {
            state.isMapped = (try? machine.unmapWindow(Self.window)) == nil
        }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        state.withLock { state in
            (0..<width.byteCount).reduce(UInt64(0)) { value, index in
                let place = Int(clamping: offset) + index
                let byte = state.chip.mode == .array ? pages.byte(at: place) : state.chip.read(place)
                return value | UInt64(byte) << UInt64(8 * index)
            }
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            for index in 0..<width.byteCount {
                let effect = state.chip.write(UInt8(truncatingIfNeeded: value >> UInt64(8 * index)), at: Int(clamping: offset) + index)
                perform(effect)
            }
            show(&state)
        }
    }

    private func perform(_ effect: CFIFlash.Effect) {
        switch effect {
        case .none: break
        case .program(let offset, let byte): pages.setByte(pages.byte(at: offset) & byte, at: offset)
        case .programBuffer(let bytes): for (offset, byte) in bytes { pages.setByte(pages.byte(at: offset) & byte, at: offset) }
        case .erase(let range): pages.write([UInt8](repeating: 0xFF, count: range.count), at: range.lowerBound)
        }
    }

    package func reset() {
        state.withLock { state in
            state.chip.reset()
            show(&state)
        }
    }

    package func saveState(into writer: inout StateWriter) {
        let chip = state.withLock { $0.chip }
        chip.save(into: &writer)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let chip = try CFIFlash(from: &reader, version: version)
        state.withLock { state in
            state.chip = chip
            show(&state)
        }
    }
}
