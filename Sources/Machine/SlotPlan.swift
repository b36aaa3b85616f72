// Which slot of bus 0 each device gets, and by which path firmware knows it when it looks for something to boot.

/// Hands out slots in the order of asking.
struct SlotPlan {
    /// Open Firmware's names for what can be booted from, as SeaBIOS and OVMF compare them.
    enum Path {
        case virtioDisk, network
        /// Any other: the slot goes where the star is.
        case below(String)

        func text(slot: UInt8) -> String {
            let slot = String(slot, radix: 16)
            return switch self {
            case .virtioDisk: "/pci@i0cf8/scsi@\(slot)/disk@0,0"
            case .network: "/pci@i0cf8/ethernet@\(slot)/ethernet-phy@0"
            case .below(let path): path.split(separator: "*", maxSplits: 1).joined(separator: slot)
            }
        }
    }
    private var next: UInt8
    private var candidates: [(index: Int, path: String)] = []

    init(first: UInt8) { next = first }

    mutating func take(_ boot: (path: Path, index: Int?)? = nil) -> UInt8 {
        defer { next += 1 }
        if let boot { note(boot.path.text(slot: next), boot.index) }
        return next
    }

    /// Something to boot from that has no slot of its own.
    mutating func note(_ path: String, _ index: Int?) { candidates.append((index ?? Int.max, path)) }

    /// Paths to boot from, those with an index first, then the others as they were given.
    var bootOrder: [String] {
        candidates.enumerated().sorted { ($0.element.index, $0.offset) < ($1.element.index, $1.offset) }.map(\.element.path)
    }
}
