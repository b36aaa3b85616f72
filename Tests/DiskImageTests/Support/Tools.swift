// The format's other implementation, run as programs; temporary files; numbers from a seed.
import DiskImage
import Foundation
import HostSystem
import Testing

enum Tools {
    /// Where a program is; nil where it is absent.
    private static func find(_ name: String) -> String? {
        ["/usr/bin", "/usr/local/bin", "/bin"].map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }
    static let image = find("qemu-img")
    static let inputOutput = find("qemu-io")

    /// For `.enabled(if:)`: says why a test is skipped.
    static let arePresent: Bool = {
        if image != nil && inputOutput != nil { return true }
        print("skipped: qemu-img and qemu-io are not installed (Debian package qemu-utils)")
        return false
    }()

    /// Runs a program to its end; its exit status and all of its output.
    @discardableResult
    static func run(_ program: String?, _ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(program))
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }

    /// Runs qemu-img, which must succeed.
    static func makeImage(_ arguments: String...) throws {
        let (status, output) = try run(image, arguments)
        try #require(status == 0, "qemu-img \(arguments.joined(separator: " ")): \(output)")
    }

    /// Runs commands of qemu-io on an image, which must all succeed.
    static func write(_ path: String, format: String = "qcow2", _ commands: [String]) throws {
        let (status, output) = try run(inputOutput, ["-f", format] + commands.flatMap { ["-c", $0] } + [path])
        try #require(status == 0 && !output.contains("failed"), "qemu-io \(commands): \(output)")
    }

    /// 0: clean; 2: damaged; 3: leaks only.
    static func check(_ path: String) throws -> (status: Int32, output: String) {
        try run(image, ["check", "-f", "qcow2", path])
    }
}

/// A directory that goes away with its owner.
final class TemporaryDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/apus-disk-test-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        path = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    subscript(_ name: String) -> String { "\(path)/\(name)" }

    /// Opens, and makes where it is absent, a file in it.
    func open(_ name: String, readOnly: Bool = false) throws -> DescriptorFile {
        try openFile(self[name], readOnly: readOnly)
    }
}

func openFile(_ path: String, readOnly: Bool = false) throws -> DescriptorFile {
    let descriptor = Glibc.open(path, readOnly ? O_RDONLY : O_RDWR | O_CREAT, 0o600)
    try #require(descriptor >= 0)
    return try DescriptorFile(owning: OwnedDescriptor(owning: descriptor), named: path)
}

func openRaw(_ path: String, readOnly: Bool = true) throws -> RawImage {
    let descriptor = Glibc.open(path, readOnly ? O_RDONLY : O_RDWR)
    try #require(descriptor >= 0)
    return try RawImage(owning: OwnedDescriptor(owning: descriptor), named: path, isReadOnly: readOnly)
}

extension BlockingImage {
    /// All of the disk's bytes.
    func contents() throws -> [UInt8] {
        let memory = try read(at: 0, count: Int(byteCount))
        return memory.array(0..<memory.byteCount)
    }

    func write(_ bytes: [UInt8], at offset: UInt64) throws {
        let memory = ScratchMemory(byteCount: bytes.count)
        memory.vectors.fill(from: bytes, at: 0)
        try carryOut(
            BlockRequest(.write(isDurable: false), offset: offset, byteCount: UInt64(bytes.count), tag: 0),
            vectors: memory.vectors)
    }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// Bytes that compress and that tell where they belong: the offset in every eight.
func pattern(byteCount: Int, seed: UInt64) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    bytes.withUnsafeMutableBytes { memory in
        for word in 0..<(byteCount / 8) {
            memory.storeBytes(of: seed &* 0x1_0000 &+ UInt64(word / 4), toByteOffset: word * 8, as: UInt64.self)
        }
    }
    return bytes
}
