// Which slot of bus 0 each device gets, and by which path firmware knows it when it looks for something to boot.

/// Hands out slots in the order of asking.
struct SlotPlan {
    /// Open Firmware's names for what can be booted from, as SeaBIOS and OVMF compare them.
    enum Path {
        case virtioDisk, network
        /// Any other: the slot goes where the star is.
        case below(String)

        /// - Parameter bus: the path of what the slot is on.
        func text(bus: String, slot: UInt8) -> String {
            let slot = String(slot, radix: 16)
            return switch self {
            case .virtioDisk: "\(bus)/scsi@\(slot)/disk@0,0"
            case .network: "\(bus)/ethernet@\(slot)/ethernet-phy@0"
            case .below(let path): bus + path.split(separator: "*", maxSplits: 1).joined(separator: slot)
            }
        }
    }
    /// A slot of bus 0, or the one slot behind a root port.
    struct Seat {
        let slot: UInt8
        /// By number; nil: on bus 0.
        var port: Int?
    }
    private static let root = "/pci@i0cf8"
    private var next: UInt8
    /// Slots of the root ports, by number.
    private var ports: [UInt8] = []
    private var candidates: [(index: Int, path: String)] = []

    init(first: UInt8) { next = first }

    mutating func take(_ boot: (path: Path, index: Int?)? = nil) -> UInt8 {
        defer { next += 1 }
        if let boot { note(boot.path.text(bus: Self.root, slot: next), boot.index) }
        return next
    }

    /// The slot of the next root port.
    mutating func takePort() -> UInt8 {
        ports.append(next)
        return take()
    }

    /// Behind a port, or in the next slot where there is none.
    mutating func take(_ boot: (path: Path, index: Int?), port: Int?) -> Seat {
        guard let port, ports.indices.contains(port) else { return Seat(slot: take(boot)) }
        note(boot.path.text(bus: Self.root + "/pci-bridge@" + String(ports[port], radix: 16), slot: 0), boot.index)
        return Seat(slot: 0, port: port)
    }

    /// Something to boot from that has no slot of its own.
    mutating func note(_ path: String, _ index: Int?) { candidates.append((index ?? Int.max, path)) }

    /// Paths to boot from, those with an index first, then the others as they were given.
    var bootOrder: [String] {
        candidates.enumerated().sorted { ($0.element.index, $0.offset) < ($1.element.index, $1.offset) }.map(\.element.path)
    }
}
