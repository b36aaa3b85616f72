// Features, configuration space and control commands of a network device (virtio 1.2 §5.1.3-5.1.6).
import MachineCore
import NetworkBackend

extension VirtIOFeatures {
    static let netChecksum = VirtIOFeatures.device(0)
    static let netGuestChecksum = VirtIOFeatures.device(1)
    static let netGuestOffloads = VirtIOFeatures.device(2)
    static let netMTU = VirtIOFeatures.device(3)
    static let netMAC = VirtIOFeatures.device(5)
    static let netGuestTSO4 = VirtIOFeatures.device(7)
    static let netGuestTSO6 = VirtIOFeatures.device(8)
    static let netHostTSO4 = VirtIOFeatures.device(11)
    static let netHostTSO6 = VirtIOFeatures.device(12)
    static let netMergeableBuffers = VirtIOFeatures.device(15)
    static let netStatus = VirtIOFeatures.device(16)
    static let netControlQueue = VirtIOFeatures.device(17)
    static let netControlReceive = VirtIOFeatures.device(18)
    static let netMultiQueue = VirtIOFeatures.device(22)
    static let netControlMAC = VirtIOFeatures.device(23)

    /// What the host may leave unfinished in frames for this driver.
    var tapOffloads: TapOffloads {
        var offloads: TapOffloads = []
        guard contains(.netGuestChecksum) else { return offloads }
        offloads.insert(.checksum)
        if contains(.netGuestTSO4) { offloads.insert(.segmentationIPv4) }
        if contains(.netGuestTSO6) { offloads.insert(.segmentationIPv6) }
        return offloads
    }
}

/// The registers of a network device: what configuration space shows and control commands change.
struct NetworkConfiguration: Sendable, Equatable {
    var mac: [UInt8]
    var isLinkUp = true
    let pairCount: UInt16
    let mtu: UInt16
    /// Pairs the driver uses: one until it asks for more.
    var activePairs: UInt16 = 1
    /// What the driver last wanted left unfinished (§5.1.6.5.6); nil: all that it negotiated.
    var offloads: VirtIOFeatures?

    /// What a control command asks of the wiring.
    enum Effect: Sendable, Equatable {
        case refused
        case done
        case activePairs(Int)
        case offloads(VirtIOFeatures)
    }

    var bytes: [UInt8] {
        var writer = StateWriter()
        for byte in mac { writer.write(byte) }
        writer.write(UInt16(isLinkUp ? 1 : 0))
        writer.write(pairCount)
        writer.write(mtu)
        return writer.bytes
    }

    /// Carries out one command of the control queue: class, command, data.
    mutating func command(_ bytes: [UInt8], features: VirtIOFeatures) -> Effect {
        guard bytes.count >= 2 else { return .refused }
        let data = bytes.dropFirst(2)
        switch (bytes[0], bytes[1]) {
        // A tap filters nothing, so every receive mode is in force already.
        case (0, 0...5) where features.contains(.netControlReceive): return .done
        case (1, 0) where features.contains(.netControlReceive): return .done
        case (1, 1) where features.contains(.netControlMAC):
            guard data.count == 6 else { return .refused }
            mac = Array(data)
            return .done
        case (4, 0) where features.contains(.netMultiQueue):
            guard data.count == 2, let low = data.first, let high = data.last else { return .refused }
            let pairs = UInt16(high) << 8 | UInt16(low)
            guard pairs >= 1, pairs <= pairCount else { return .refused }
            activePairs = pairs
            return .activePairs(Int(pairs))
        case (5, 0) where features.contains(.netGuestOffloads):
            guard data.count == 8 else { return .refused }
            let wanted = VirtIOFeatures(rawValue: readBlock(Array(data), offset: 0, width: .quadWord))
            guard features.isSuperset(of: wanted) else { return .refused }
            offloads = wanted
            return .offloads(wanted)
        default: return .refused
        }
    }
}
