// <instances_path>/<uuid>_resize/, by Nova's name: a machine as it was before a resize that nobody has confirmed yet. The
// machine's own directory is the one that changes; each of the two is whole or absent at any moment:
//
//   keep     a copy under a draft's name, then renamed        cut short: the draft goes with the next start
//   putBack  the changed directory goes, the kept one gets    cut short: the next start gives the name
//            its name
import Glibc

extension InstanceDirectory {
    private static let suffix = "_resize"

    init(keptOf uuid: String, instancesPath: String) { self.init(instancesPath: instancesPath, uuid: uuid + Self.suffix) }

    /// Copies what the machine is made of, and how its last run ended, into `kept`; what a start writes anew stays behind. Blocks
    /// are shared where the file system can; else only data is copied, holes are not.
    func keep(in kept: InstanceDirectory, isCancelled: () -> Bool) throws {
        try kept.remove()
        let draft = try kept.prepare()
        do {
            for name in try Files.names(in: path) where !Self.isWrittenAnew(name) {
                if Self.isNeverWritten(name) {
                    try DiskFiles.linkOrCopy(file(name), to: draft.file(name), isCancelled: isCancelled)
                } else {
                    try DiskFiles.copy(
                        try Descriptor(opening: file(name), O_RDONLY), named: file(name), to: draft.file(name), byteCount: 0,
                        isCancelled: isCancelled)
                }
            }
            if isCancelled() { throw CancellationError() }
            try kept.publish(draft)
        } catch {
            Self.discard(draft)
            throw error
        }
    }

    /// Replaces the machine by the kept one; nothing is kept: it stays.
    func putBack(_ kept: InstanceDirectory) throws(HostFailure) {
        guard kept.exists else { return }
        try remove()
        try Files.rename(kept.path, to: path)
    }

    /// Ends what a crash cut between the two steps of `putBack`.
    static func finishPuttingBack(in instancesPath: String) throws(HostFailure) {
        for name in try Files.names(in: instancesPath) where name.hasSuffix(suffix) {
            let uuid = String(name.dropLast(suffix.count))
            let directory = InstanceDirectory(instancesPath: instancesPath, uuid: uuid)
            guard !Files.exists(directory.path) else { continue }
            try directory.putBack(InstanceDirectory(keptOf: uuid, instancesPath: instancesPath))
        }
    }

    private static func isWrittenAnew(_ name: String) -> Bool {
        name.hasSuffix(".log") || name.hasSuffix(".new") || name == "monitor.pid"
    }

    /// A second name for the file will do.
    private static func isNeverWritten(_ name: String) -> Bool {
        name.hasPrefix("kernel") || name.hasPrefix("ramdisk") || name.hasPrefix("disk.config")
    }
}
