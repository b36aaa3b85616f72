import Foundation
import HostSystem
import NetworkBackend
import Testing

/// Why a tap cannot be used here, or nil.
private func obstacle() -> String? {
    do {
        _ = try openTap(named: "apusprobe%d", isMultiQueue: false)
        return nil
    } catch {
        print("tap tests skipped: \(error)")
        return "\(error)"
    }
}
private let isUsable = obstacle() == nil

@Suite struct TapQueueTests {
    @Test(.enabled(if: isUsable)) func tapTakesHeaderOffloadsAndAttachment() throws {
        let tap = try TapQueue(owning: openTap(named: "apust%d", isMultiQueue: true), named: "test")
        #expect(tap.isMultiQueue)
        try tap.setOffloads([.checksum, .segmentationIPv4, .segmentationIPv6])
        try tap.setOffloads([])
        try tap.setAttached(false)
        try tap.setAttached(true)
        try tap.setAttached(true)
    }

    @Test(.enabled(if: isUsable)) func silentTapWouldBlockAndADownedOneFails() throws {
        let tap = try TapQueue(owning: openTap(named: "apust%d", isMultiQueue: false), named: "test")
        var bytes = [UInt8](repeating: 0, count: 2048)
        bytes.withUnsafeMutableBytes { buffer in
            let vectors = UnsafeMutableBufferPointer<iovec>.allocate(capacity: 1)
            defer { vectors.deallocate() }
            vectors[0] = iovec(iov_base: buffer.baseAddress, iov_len: 100)
            #expect(tap.read(into: vectors) == .wouldBlock || tap.read(into: vectors) == .failed(EBADFD))
            #expect(tap.write(from: vectors) == .failed(EIO))
        }
    }

    @Test func descriptorThatIsNoTapIsRefused() throws {
        #expect(throws: HostError.self) {
            try TapQueue(owning: OwnedDescriptor(owning: open("/dev/null", O_RDWR)), named: "null")
        }
    }
}
