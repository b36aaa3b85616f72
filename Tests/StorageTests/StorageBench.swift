// A disk in a temporary file and a recorded line: what a controller is built from besides `MachineTesting`.
import DiskImage
import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import Synchronization
import Testing

@testable import Storage

final class RecordedLine: InterruptLine {
    private let level = Atomic<Bool>(false)
    private let rises = Atomic<Int>(0)
    func assert() { if !level.exchange(true, ordering: .relaxed) { rises.wrappingAdd(1, ordering: .relaxed) } }
    func deassert() { level.store(false, ordering: .relaxed) }
    var isHigh: Bool { level.load(ordering: .relaxed) }
    var riseCount: Int { rises.load(ordering: .relaxed) }
}

/// An image in an unlinked file, whose bytes the test sees past the drive.
final class TestDisk {
    let image: RawImage
    let descriptor: CInt

    init(byteCount: Int, isReadOnly: Bool = false) throws {
        var path = Array("/tmp/apus-storage-test-XXXXXX".utf8CString)
        descriptor = mkstemp(&path)
        unlink(path)
        ftruncate(descriptor, off_t(byteCount))
        image = try RawImage(owning: OwnedDescriptor(owning: dup(descriptor)), named: "test", isReadOnly: isReadOnly)
    }
    deinit { close(descriptor) }

    func bytes(at offset: Int, count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        _ = pread(descriptor, &bytes, count, off_t(offset))
        return bytes
    }

    func set(_ bytes: [UInt8], at offset: Int) { _ = pwrite(descriptor, bytes, bytes.count, off_t(offset)) }
}

func pattern(_ count: Int, seed: Int = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ seed &* 77) }
}

extension GuestMemory {
    func word(_ address: UInt64) -> UInt32 { (try? load(UInt32.self, at: GuestAddress(address))) ?? 0 }
    func put<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, _ address: UInt64) {
        try? store(value, at: GuestAddress(address))
    }
    func get(_ address: UInt64, _ count: Int) -> [UInt8] { (try? bytes(at: GuestAddress(address), count: count)) ?? [] }
    func set(_ bytes: [UInt8], _ address: UInt64) { try? write(bytes, at: GuestAddress(address)) }
}

let testIdentity = DriveIdentity(model: "APUS TESTDISK", serial: "serial-0001", worldWideName: 0x5000_1234_5678_9ABC)

/// The text of an IDENTIFY field: the bytes of each word swapped.
func identifyText(_ data: [UInt8], word: Int, count: Int) -> String {
    var bytes: [UInt8] = []
    for index in word..<(word + count) { bytes += [data[2 * index + 1], data[2 * index]] }
    return String(decoding: bytes, as: UTF8.self)
}

func word(_ data: [UInt8], _ index: Int) -> UInt16 { UInt16(data[2 * index]) | UInt16(data[2 * index + 1]) << 8 }
