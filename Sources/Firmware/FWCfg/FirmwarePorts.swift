// fw_cfg on the bus: the selector at 0x510, data a byte at a time at 0x511, and DMA by an address written to 0x514-0x51B.
package import GuestMemory
package import MachineCore
import Synchronization

package final class FirmwarePorts: BusDevice, SavableDevice {
    package static let base: UInt16 = 0x510, count: UInt16 = 12
    package static let stateVersion: UInt32 = 2
    package var stateName: String { "fw_cfg" }

    /// Bits of a DMA command's control word.
    private enum Control {
        static let error: UInt32 = 1, read: UInt32 = 2, skip: UInt32 = 4, select: UInt32 = 8, write: UInt32 = 16
    }
    /// "QEMU CFG", as the address register reads.
    private static let signature: UInt64 = 0x5145_4D55_2043_4647
    /// What is moved at a time.
    private static let piece = 64 << 10

    private let state: Mutex<FWCfg>
    private let memory: GuestMemory

    package init(_ items: FirmwareItems, memory: GuestMemory) {
        state = Mutex(FWCfg(items))
        self.memory = memory
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        switch (offset, width) {
        case (1, .byte): UInt64(state.withLock { $0.take(1) }.first ?? 0)
        case (4, .doubleWord): UInt64(UInt32(truncatingIfNeeded: Self.signature >> 32).byteSwapped)
        case (8, .doubleWord): UInt64(UInt32(truncatingIfNeeded: Self.signature).byteSwapped)
        default: width.allOnes
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        switch (offset, width) {
        case (0, .word): state.withLock { $0.select(UInt16(truncatingIfNeeded: value)) }
        case (4, .doubleWord): state.withLock { $0.dmaAddress = UInt64(UInt32(truncatingIfNeeded: value).byteSwapped) << 32 }
        case (8, .doubleWord):
            state.withLock { state in
                let address = state.dmaAddress | UInt64(UInt32(truncatingIfNeeded: value).byteSwapped)
                state.dmaAddress = 0
                perform(GuestAddress(address), &state)
            }
        default: break
        }
    }

    /// One command: control, length and address, big-endian, in guest memory. Its control word is the answer: 0, or the error bit.
    private func perform(_ command: GuestAddress, _ state: inout FWCfg) {
        guard let control = try? memory.load(UInt32.self, at: command).bigEndian,
            let length = try? memory.load(UInt32.self, at: GuestAddress(command.rawValue &+ 4)).bigEndian,
            let target = try? memory.load(UInt64.self, at: GuestAddress(command.rawValue &+ 8)).bigEndian
        else { return }  // not in RAM: nobody to answer
        if control & Control.select != 0 { state.select(UInt16(truncatingIfNeeded: control >> 16)) }
        var answer: UInt32 = 0
        if control & Control.read != 0 {
            if !transfer(length, to: target, &state) { answer = Control.error }
        } else if control & Control.skip != 0 {
            state.skip(length)
        } else if control & Control.write != 0 {
            if !receive(length, from: target, &state) { answer = Control.error }
        }
        try? memory.store(answer.bigEndian, at: command)
    }

    private func transfer(_ length: UInt32, to target: UInt64, _ state: inout FWCfg) -> Bool {
        // The whole range first: a command that is refused moves nothing.
        guard unsafe (try? memory.hostRange(at: GuestAddress(target), byteCount: UInt64(length))) != nil else { return false }
        var done: UInt64 = 0
        while done < UInt64(length) {
            let bytes = state.take(Int(min(UInt64(length) - done, UInt64(Self.piece))))
            guard (try? memory.write(bytes, at: GuestAddress(target + done))) != nil else { return false }
            done += UInt64(bytes.count)
        }
        return true
    }

    /// A write of a file that takes it, within its length; every other moves nothing.
    private func receive(_ length: UInt32, from source: UInt64, _ state: inout FWCfg) -> Bool {
        guard let limit = state.writableByteCount, UInt64(length) <= limit,
            let bytes = try? memory.bytes(at: GuestAddress(source), count: Int(length))
        else { return false }
        state.put(bytes)
        return true
    }

    package func reset() { state.withLock { $0.reset() } }

    package func saveState(into writer: inout StateWriter) {
        let (selector, position, address, written) = state.withLock { ($0.selector, $0.position, $0.dmaAddress, $0.written) }
        writer.write(selector)
        writer.write(position)
        writer.write(address)
        writer.write(UInt32(written.count))
        for (name, bytes) in written {
            writer.write(name)
            writer.write(bytes)
        }
    }

    /// Files that a guest may write are few.
    private static let writtenLimit: UInt32 = 16

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let selector: UInt16 = try reader.read(), position: UInt32 = try reader.read(), address: UInt64 = try reader.read()
        state.withLock { $0.restore(selector: selector, position: position, dmaAddress: address) }
        guard version >= 2 else { return }
        let count: UInt32 = try reader.read()
        guard count <= Self.writtenLimit else { throw DeviceStateError(section: stateName, reason: "\(count) files that were written") }
        for _ in 0..<count {
            let name = try reader.readString(limit: 55), bytes = try reader.readBytes(limit: 4096)
            guard state.withLock({ $0.restore(name, bytes) }) else {
                throw DeviceStateError(section: stateName, reason: "this machine has no file \(name) of \(bytes.count) bytes to write")
            }
        }
    }
}
