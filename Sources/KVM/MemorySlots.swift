// What the guest sees as memory: KVM's slots for RAM, and for windows beside it (api.rst §4.35).
//
// With system management mode there are two address spaces (KVM_CAP_MULTI_ADDRESS_SPACE): number 1 is seen in that mode and has all RAM,
// number 0 at all other times. RAM that may be concealed has slots of its own in number 0, laid out once, so that no other slot changes
// while processors run.
import CKVM
import Glibc
import GuestMemory
import HostSystem
import MachineCore
import Synchronization

final class MemorySlots: Sendable {
    /// Number 1, in the upper half of a slot's number.
    private static let managementSpace: UInt32 = 1 << 16
    /// Slots of RAM come first: at most two regions and what `pieceLimit` cuts make of them.
    private static let firstWindow: UInt32 = 32
    private static let pieceLimit = 8

    private struct Slot: Sendable {
        let number: UInt32
        let base: UInt64, byteCount: UInt64
        /// Where it is in this process.
        let host: UInt64
    }
    private struct State: Sendable {
        var hasManagement = false
        var pieces: [Range<UInt64>] = []
        /// By piece, in number 0.
        var pieceSlots: [Int: Slot] = [:]
        var concealed: Set<Int> = []
        var windows: [Int: HostPages] = [:]
        /// Kept alive as long as slots show it.
        var memory: GuestMemory?
    }
    /// The machine's descriptor, whose owner outlives this.
    private let vm: CInt
    private let state = Mutex(State())

    init(vm: CInt) { self.vm = vm }

    private func set(_ slot: Slot, flags: UInt32 = 0, _ subject: @autoclosure () -> String) throws(AcceleratorError) {
        guard ckvm_set_memory(vm, slot.number, flags, slot.base, slot.byteCount, slot.host) == 0 else {
            throw kvmError("KVM_SET_USER_MEMORY_REGION", subject())
        }
    }

    private func remove(_ number: UInt32, _ subject: @autoclosure () -> String) throws(AcceleratorError) {
        try set(Slot(number: number, base: 0, byteCount: 0, host: 0), subject())
    }

    // MARK: RAM

    func enableSystemManagement(concealable pieces: [Range<UInt64>]) throws(AcceleratorError) {
        for (capability, name, least) in [(KVM_CAP_X86_SMM, "KVM_CAP_X86_SMM", CInt(1)), (KVM_CAP_MULTI_ADDRESS_SPACE, "KVM_CAP_MULTI_ADDRESS_SPACE", 2)]
        where ckvm_check_extension(vm, capability) < least {
            throw AcceleratorError(
                "KVM_CHECK_EXTENSION", subject: name, reason: "this host's KVM has no system management mode, which Secure Boot needs; take a kernel with CONFIG_KVM_SMM")
        }
        let isOrdered = zip(pieces, pieces.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound }
        guard pieces.count <= Self.pieceLimit, isOrdered, pieces.allSatisfy({ !$0.isEmpty && $0.lowerBound % 4096 == 0 && $0.upperBound % 4096 == 0 }) else {
            throw AcceleratorError(
                "enable", subject: "system management mode", fault: .caller, reason: "\(pieces.count) pieces to conceal, \(Self.pieceLimit) in order and of whole pages are the limit")
        }
        state.withLock { state in
            state.hasManagement = true
            state.pieces = pieces
        }
    }

    func map(_ memory: GuestMemory) throws(AcceleratorError) {
        let (pieces, hasManagement) = state.withLock { ($0.pieces, $0.hasManagement) }
        var number: UInt32 = 0, found: [Int: Slot] = [:]
        for (index, region) in memory.regions.enumerated() {
            // SAFETY: the region lies in the mapping, which this object keeps alive below.
            let host = unsafe UInt64(UInt(bitPattern: memory.hostAddress(of: region)))
            let base = region.base.rawValue, end = base + region.byteCount
            let inside = pieces.filter { base <= $0.lowerBound && $0.upperBound <= end }
            let bounds = Set([base, end] + inside.flatMap { [$0.lowerBound, $0.upperBound] }).sorted()
            for (start, stop) in zip(bounds, bounds.dropFirst()) {
                let slot = Slot(number: number, base: start, byteCount: stop - start, host: host + (start - base))
                try set(slot, "\(slot.byteCount) bytes at \(GuestAddress(start))")
                if let piece = pieces.firstIndex(of: start..<stop) { found[piece] = slot }
                number += 1
            }
            if hasManagement {
                let whole = Slot(number: Self.managementSpace | UInt32(index), base: base, byteCount: region.byteCount, host: host)
                try set(whole, "\(region.byteCount) bytes at \(region.base) in system management mode")
            }
        }
        guard found.count == pieces.count else {
            throw AcceleratorError("conceal", subject: "\(pieces.count) pieces of RAM", fault: .caller, reason: "RAM is at \(found.count) of them")
        }
        state.withLock { [found] state in
            state.memory = memory
            state.pieceSlots = found
        }
    }

    func setConcealed(_ piece: Int, _ isConcealed: Bool) throws(AcceleratorError) {
        let (known, was) = state.withLock { ($0.pieceSlots[piece], $0.concealed.contains(piece)) }
        guard let slot = known else {
            throw AcceleratorError("conceal", subject: "piece \(piece) of RAM", fault: .caller, reason: "there is no such piece")
        }
        guard isConcealed != was else { return }
        if isConcealed { try remove(slot.number, "piece \(piece) of RAM") } else { try set(slot, "piece \(piece) of RAM") }
        state.withLock { state in
            if isConcealed { state.concealed.insert(piece) } else { state.concealed.remove(piece) }
        }
    }

    // MARK: Windows

    func mapWindow(_ window: Int, _ pages: HostPages, at base: GuestAddress, isReadOnly: Bool) throws(AcceleratorError) {
        guard (0..<8).contains(window) else {
            throw AcceleratorError("map", subject: "window \(window)", fault: .caller, reason: "there are eight")
        }
        try unmapWindow(window)
        // SAFETY: `windows` keeps the pages alive as long as the slot shows them.
        let host = unsafe UInt64(UInt(bitPattern: pages.hostAddress)), flags = isReadOnly ? UInt32(KVM_MEM_READONLY) : 0
        state.withLock { $0.windows[window] = pages }
        for space in spaces {
            let slot = Slot(number: space | Self.firstWindow + UInt32(window), base: base.rawValue, byteCount: UInt64(pages.byteCount), host: host)
            try set(slot, flags: flags, "\(pages.byteCount) bytes of firmware at \(base)")
        }
    }

    func unmapWindow(_ window: Int) throws(AcceleratorError) {
        guard state.withLock({ $0.windows[window] }) != nil else { return }
        for space in spaces { try remove(space | Self.firstWindow + UInt32(window), "window \(window)") }
        state.withLock { $0.windows[window] = nil }
    }

    private var spaces: [UInt32] { state.withLock { $0.hasManagement } ? [0, Self.managementSpace] : [0] }
}
