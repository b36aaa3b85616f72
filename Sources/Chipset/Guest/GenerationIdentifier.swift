// The generation of a virtual machine (Microsoft, "Virtual Machine Generation ID"; ACPI id VM_Gen_Counter): a GUID in
// guest memory that changes when the guest goes on from an earlier point in time, so that it makes new random numbers
// and names.
//
// Who builds the machine puts `page` into guest memory (fw_cfg file etc/vmgenid_guid), where the DSDT's method ADDR
// points 40 bytes in, writes it again in `onChange`, and notifies the device by a general-purpose event.
package import MachineCore
import Synchronization

/// A GUID as guests read it: the first three fields little-endian.
package struct GenerationID: Sendable, Equatable {
    package let low: UInt64, high: UInt64

    /// The 16 bytes in guest memory, lowest first.
    package init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }

    /// From the text form, 8-4-4-4-12 hexadecimal digits in either case; nil where it is none.
    package init?(_ text: String) {
        var digits: [UInt8] = []
        for (index, character) in text.utf8.enumerated() {
            if [8, 13, 18, 23].contains(index) {
                guard character == UInt8(ascii: "-") else { return nil }
                continue
            }
            switch character {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digits.append(character - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digits.append(character - UInt8(ascii: "a") + 10)
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digits.append(character - UInt8(ascii: "A") + 10)
            default: return nil
            }
        }
        guard digits.count == 32 else { return nil }
        let text = (0..<16).map { UInt64(digits[$0 * 2] << 4 | digits[$0 * 2 + 1]) }
        // Bytes 3 to 0, 5 and 4, 7 and 6, then as written.
        let order = [3, 2, 1, 0, 5, 4, 7, 6]
        low = (0..<8).reduce(0) { $0 | text[order[$1]] << UInt64($1 * 8) }
        high = (0..<8).reduce(0) { $0 | text[8 + $1] << UInt64($1 * 8) }
    }

    package var bytes: [UInt8] {
        [low, high].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64($0 * 8)) } }
    }
}

package final class GenerationIdentifier: SavableDevice, Sendable {
    package static let stateVersion: UInt32 = 1
    package var stateName: String { "vmgenid" }
    /// The GUID is not where firmware that looks for ACPI tables in such files would take it for one's header.
    package static let offsetInPage = 40
    package static let pageByteCount = 4096

    private struct State: Sendable {
        var value: GenerationID
        var handler: (@Sendable (GenerationID) -> Void)?
    }
    private let state: Mutex<State>

    package init(_ value: GenerationID) { state = Mutex(State(value: value)) }

    package var value: GenerationID { state.withLock { $0.value } }

    /// The page as it goes into guest memory.
    package var page: [UInt8] {
        var page = [UInt8](repeating: 0, count: Self.pageByteCount)
        page.replaceSubrange(Self.offsetInPage..<(Self.offsetInPage + 16), with: value.bytes)
        return page
    }

    /// Who writes a new value into guest memory and notifies the guest. Called on the thread that sets it, without the
    /// lock.
    package func onChange(_ handler: (@Sendable (GenerationID) -> Void)?) { state.withLock { $0.handler = handler } }

    /// The guest is about to go on in another generation, its processors stopped.
    package func set(_ value: GenerationID) {
        let handler = state.withLock { state -> (@Sendable (GenerationID) -> Void)? in
            guard state.value != value else { return nil }
            state.value = value
            return state.handler
        }
        handler?(value)
    }

    package func saveState(into writer: inout StateWriter) {
        let value = value
        writer.write(value.low)
        writer.write(value.high)
    }

    /// The saved generation. A copy of the machine then gets one of its own by `set`; a migrated machine keeps it.
    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let low: UInt64 = try reader.read(), high: UInt64 = try reader.read()
        state.withLock { $0.value = GenerationID(low: low, high: high) }
    }
}
