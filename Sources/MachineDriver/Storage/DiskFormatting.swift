// What a guest finds on the disks that Nova makes empty: a file system on the ephemeral one, a swap area on the swap disk. Made by the
// distribution's own programs, with an argument vector and a deadline.
import ComputeDriver
import Glibc

struct DiskFormatting: Sendable, Equatable {
    /// Where mkfs.ext4 and its like lie.
    var directories = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
    /// [DEFAULT] default_ephemeral_format.
    var defaultFileSystem: String?
    private static let timeoutMilliseconds: CInt = 300_000

    /// Nova's choice (nova.virt.disk.api): by the image's os_type, then as configured, then vfat.
    func fileSystem(osType: String?) -> String {
        switch osType {
        case "linux": "ext4"
        case "windows": "ntfs"
        default: defaultFileSystem ?? "vfat"
        }
    }

    /// A label, and the words before the path of the disk.
    static func command(_ fileSystem: String, label: String) -> [String] {
        switch fileSystem {
        case "vfat", "msdos": ["mkfs.\(fileSystem)", "-n", label]
        case "ntfs": ["mkfs.ntfs", "-F", "--fast", "--quiet", "--label", label]
        case "ext2", "ext3", "ext4": ["mkfs.\(fileSystem)", "-q", "-F", "-L", label]
        case "xfs", "btrfs": ["mkfs.\(fileSystem)", "-q", "-f", "-L", label]
        default: ["mkfs.\(fileSystem)", "-L", label]
        }
    }

    /// Blocks. - Throws: the host's fault, which names the program and says what it said.
    func makeFileSystem(on path: String, label: String, osType: String?) throws {
        let fileSystem = fileSystem(osType: osType)
        // It becomes part of a program's name.
        guard !fileSystem.isEmpty, fileSystem.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber) }) else {
            throw HostFailure("make file system", "\(fileSystem.prefix(32)) on \(path)", errno: EINVAL, remedy: "correct [DEFAULT] default_ephemeral_format")
        }
        try run(Self.command(fileSystem, label: label) + [path], "make file system \(fileSystem) on \(path)")
    }

    /// Blocks.
    func makeSwap(on path: String) throws { try run(["mkswap", path], "make swap area on \(path)") }

    private func run(_ words: [String], _ what: String) throws {
        let name = words.first ?? ""
        guard let program = directories.map({ "\($0)/\(name)" }).first(where: Files.isExecutable) else {
            throw HostFailure(what, "with \(name)", errno: ENOENT, remedy: "install the package that has \(name), or set [DEFAULT] default_ephemeral_format")
        }
        try MonitorProcess.runToSuccess(program, arguments: words, timeoutMilliseconds: Self.timeoutMilliseconds)
    }
}

/// A disk that no image fills.
struct EmptyDisk: Sendable, Equatable {
    enum Purpose: Sendable, Equatable {
        /// With the label and the image's os_type.
        case ephemeral(label: String, osType: String?)
        case swap
    }
    /// Its name in the instance's directory.
    var file: String
    var byteCount: Int64
    var purpose: Purpose

    /// A hole with a file system or a swap area; on failure there is no file. Blocks.
    func make(at path: String, _ formatting: DiskFormatting) throws {
        try DiskFiles.makeEmpty(path, byteCount: byteCount)
        do {
            switch purpose {
            case .ephemeral(let label, let osType): try formatting.makeFileSystem(on: path, label: label, osType: osType)
            case .swap: try formatting.makeSwap(on: path)
            }
        } catch {
            unsafe unlink(path)
            throw error
        }
    }
}
