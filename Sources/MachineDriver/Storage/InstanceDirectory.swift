// <instances_path>/<uuid>/: all that this host keeps of an instance.
//
//   disk, disk.config, disk.eph0, disk.swap   raw disks       machine.json   what the machine is made of (SavedMachine)
//   kernel, ramdisk                           to boot from    monitor.pid    "pid starttime" of the running monitor
//   console.log, monitor.log                                  run.json       the last start, and how it ended
//
// Made under another name and renamed when it is complete: what bears an instance's uuid is whole.
import Glibc
import JSON

struct InstanceDirectory: Sendable {
    let path: String

    init(instancesPath: String, uuid: String) { path = "\(instancesPath)/\(uuid)" }
    fileprivate init(path: String) { self.path = path }

    func file(_ name: String) -> String { "\(path)/\(name)" }
    /// - Parameter suffix: SavedMachine's bootSuffix.
    func kernel(_ suffix: String = "") -> String { file("kernel" + suffix) }
    /// UEFI variables.
    func variables(_ suffix: String = "") -> String { file("uefi-variables" + suffix) }
    func ramdisk(_ suffix: String = "") -> String { file("ramdisk" + suffix) }
    var consoleLog: String { file("console.log") }
    var monitorLog: String { file("monitor.log") }
    private var machineFile: String { file("machine.json") }
    /// What the machine is again after a rescue.
    private var unrescueFile: String { file("unrescue.json") }
    private var pidFile: String { file("monitor.pid") }
    private var runFile: String { file("run.json") }

    /// Complete: it was renamed, so it has its description.
    var exists: Bool { Files.exists(machineFile) }

    func machine() throws -> SavedMachine? { try machine(in: machineFile) }

    private func machine(in path: String) throws -> SavedMachine? {
        guard let text = try Files.read(path) else { return nil }
        guard let json = try? JSONValue.parse(text), let machine = SavedMachine(json: json) else {
            throw HostFailure("read", path, errno: EBADMSG, remedy: "it is none of this version's descriptions")
        }
        return machine
    }

    /// What a rescued machine was before; nil: it is not rescued.
    func machineBeforeRescue() throws -> SavedMachine? { try machine(in: unrescueFile) }

    func saveBeforeRescue(_ machine: SavedMachine) throws(HostFailure) {
        try Files.replace(unrescueFile, with: machine.json.serializedBytes())
    }

    /// Forgets a rescue: its files go, the description last.
    func removeRescue() throws(HostFailure) {
        for name in try Files.names(in: path) where name.hasSuffix(SavedMachine.rescueSuffix) { try Files.removeTree(file(name)) }
        try Files.removeTree(unrescueFile)
    }

    func save(_ machine: SavedMachine) throws(HostFailure) {
        try Files.replace(machineFile, with: machine.json.serializedBytes())
    }

    func process() throws(HostFailure) -> ProcessIdentity? {
        try Files.text(pidFile).flatMap(ProcessIdentity.init(text:))
    }

    /// Nil removes the file.
    func save(_ process: ProcessIdentity?) throws(HostFailure) {
        guard let process else {
            unsafe unlink(pidFile)
            return
        }
        try Files.replace(pidFile, with: Array(process.text.utf8), mode: 0o644)
    }

    func run() throws(HostFailure) -> MachineRun? {
        guard let text = try Files.read(runFile), let json = try? JSONValue.parse(text) else { return nil }
        return MachineRun(json: json)
    }

    func save(_ run: MachineRun) throws(HostFailure) {
        try Files.replace(runFile, with: run.json.serializedBytes())
    }

    /// The end of the monitor's log, for the operator.
    func monitorLogTail(byteCount: Int = 2048) -> String {
        let bytes = (try? tail(of: monitorLog, byteCount: byteCount)) ?? []
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The last bytes of a file; none where there is none.
    func tail(of path: String, byteCount: Int) throws(HostFailure) -> [UInt8] {
        let file: Descriptor
        do { file = try Descriptor(opening: path, O_RDONLY) } catch {
            if error.errno == ENOENT { return [] }
            throw error
        }
        let size = try Files.byteCount(of: file, named: path)
        let count = min(Int64(max(0, byteCount)), size)
        var bytes = [UInt8](repeating: 0, count: Int(count))
        // SAFETY: the buffer is ours and as long as said. A log that is cut in between gives less.
        let got = unsafe pread(file.rawValue, &bytes, bytes.count, off_t(size - count))
        guard got >= 0 else { throw HostFailure("read", path) }
        return Array(bytes.prefix(got))
    }

    /// For appending; cut to its end where it has grown over the bound.
    func openMonitorLog(limit: Int = 256 << 10) throws(HostFailure) -> Descriptor {
        let file = try Descriptor(opening: monitorLog, O_RDWR | O_CREAT | O_APPEND)
        if try Files.byteCount(of: file, named: monitorLog) > Int64(limit) {
            let kept = try tail(of: monitorLog, byteCount: limit / 4)
            guard ftruncate(file.rawValue, 0) == 0 else { throw HostFailure("cut", monitorLog) }
            try Files.append(kept, to: file, named: monitorLog)
        }
        return file
    }

    func remove() throws(HostFailure) {
        // Renamed first: half a directory must not look like an instance.
        let old = Self.temporary(of: path)
        try Files.removeTree(old)
        guard unsafe rename(path, old) == 0 else {
            if errno == ENOENT { return }
            throw HostFailure("remove", path)
        }
        try Files.removeTree(old)
    }

    // MARK: Making

    private static let temporarySuffix = ".tmp"
    private static func temporary(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return ".\(path)\(temporarySuffix)" }
        return "\(path[..<slash])/.\(path[path.index(after: slash)...])\(temporarySuffix)"
    }

    /// An empty directory to fill; `publish` gives it its name, `discard` takes it away.
    func prepare() throws(HostFailure) -> InstanceDirectory {
        let draft = InstanceDirectory(path: Self.temporary(of: path))
        try Files.removeTree(draft.path)
        try Files.makeDirectories(draft.path)
        return draft
    }

    func publish(_ draft: InstanceDirectory) throws(HostFailure) {
        try Files.synchronizeDirectory(of: draft.file("."))
        try Files.rename(draft.path, to: path)
    }

    static func discard(_ draft: InstanceDirectory) { try? Files.removeTree(draft.path) }

    /// What a crash left half made or half removed.
    static func removeDrafts(in instancesPath: String) throws(HostFailure) {
        for name in try Files.names(in: instancesPath) where name.hasPrefix(".") && name.hasSuffix(temporarySuffix) {
            try Files.removeTree("\(instancesPath)/\(name)")
        }
    }
}

/// run.json: a start of the machine, and how it ended where this service saw it end.
struct MachineRun: Sendable, Equatable {
    enum End: String { case shutdown, crashed }
    /// The host's boot id: a machine cannot have survived another.
    var bootID: String
    var controlSocket: String
    var consoleSocket: String
    var end: End?

    init(bootID: String, controlSocket: String, consoleSocket: String, end: End? = nil) {
        self.bootID = bootID
        self.controlSocket = controlSocket
        self.consoleSocket = consoleSocket
        self.end = end
    }

    var json: JSONValue {
        [
            "bootID": .string(bootID), "controlSocket": .string(controlSocket), "consoleSocket": .string(consoleSocket),
            "end": end.map { .string($0.rawValue) } ?? .null,
        ]
    }

    init?(json: JSONValue) {
        guard let bootID = json["bootID"]?.stringValue, let controlSocket = json["controlSocket"]?.stringValue,
            let consoleSocket = json["consoleSocket"]?.stringValue
        else { return nil }
        self.init(
            bootID: bootID, controlSocket: controlSocket, consoleSocket: consoleSocket,
            end: json["end"]?.stringValue.flatMap(End.init(rawValue:)))
    }
}
