// The virtual machine generation id on a board: its page in guest memory, and the event that tells a guest of another id.
import Chipset
import GuestMemory
import MachineConfiguration
import Synchronization

/// The generation id in guest memory: where firmware put its page, or where the tables of a machine without firmware say.
final class GenerationPage: Sendable {
    /// Of the general-purpose events, the one whose method notifies the device.
    private static let event = 5

    let identifier: GenerationIdentifier
    private let wanted: GenerationID
    private let memory: GuestMemory
    private let power: PowerManagement
    private let fixedAddress: GuestAddress?
    /// Of the id itself; nil until firmware has said so.
    private let address = Mutex<GuestAddress?>(nil)

    /// - Parameter address: of the page, where firmware does not place it.
    init(_ id: MachineUUID, memory: GuestMemory, power: PowerManagement, address: GuestAddress?) {
        // A UUID's text is always one of a GUID.
        wanted = GenerationID(id.description) ?? GenerationID(low: 0, high: 0)
        identifier = GenerationIdentifier(wanted)
        self.memory = memory
        self.power = power
        fixedAddress = address
        self.address.withLock { $0 = address?.advanced(by: UInt64(GenerationIdentifier.offsetInPage)) }
        identifier.onChange { [weak self] value in self?.tell(value) }
    }

    /// What firmware wrote to etc/vmgenid_addr: zeroes before it did.
    func setAddress(_ bytes: [UInt8]) {
        let number = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        address.withLock { $0 = number == 0 ? nil : GuestAddress(number) }
    }

    /// For a machine without firmware, at each start.
    func place() throws {
        if let fixedAddress { try memory.write(identifier.page, at: fixedAddress) }
    }

    /// After saved state was restored: the machine's id is the description's, and a guest that had another one is told.
    func renew() { identifier.set(wanted) }

    private func tell(_ value: GenerationID) {
        // An address outside of RAM is the guest's mistake.
        guard let address = address.withLock({ $0 }), (try? memory.write(value.bytes, at: address)) != nil else { return }
        power.raiseGeneralPurposeEvent(Self.event)
    }
}
