// What another flavor makes of a machine, decided before anything is changed: pure. What is not the flavor's affair (kernel,
// firmware, board, the root disk's bus, the config drive) stays as it was made.
import ComputeDriver
import NovaObjects

struct ResizePlan: Sendable {
    /// The machine afterwards.
    var machine: SavedMachine
    /// What the root disk grows to; nil: it has that already.
    var rootByteCount: Int64?
    /// What each of the others is to have: one that is missing is made, one that is smaller grows.
    var emptyDisks: [EmptyDisk]
    /// Files that are removed before those are made, as nothing in them is worth keeping.
    var worthless: [String] = []

    static let root = "disk"
    private static let ephemeral = "disk.eph0", swap = "disk.swap"

    /// - Parameter byteCounts: what the machine's disks have now, by their files.
    init(
        _ machine: SavedMachine, _ request: ResizeRequest, byteCounts: [String: Int64], options: MachineDriverOptions
    ) throws(DriverError) {
        var instance = request.instance
        instance.take(request.flavor)
        // The rules for a new machine of that size hold for this one.
        let wanted = try MachinePlan(
            SpawnRequest(
                instance: instance, image: request.image, interfaces: machine.interfaces, configDrive: nil,
                fetchImage: { _, _ in 0 }, startsPaused: false), options: options)
        emptyDisks = wanted.emptyDisks
        self.machine = machine
        self.machine.memoryMiB = wanted.machine.memoryMiB
        self.machine.vcpus = wanted.machine.vcpus
        self.machine.sockets = wanted.machine.sockets
        self.machine.cores = wanted.machine.cores
        self.machine.threads = wanted.machine.threads
        self.machine.hasEntropy = wanted.machine.hasEntropy
        self.machine.queueCount = wanted.machine.queueCount
        self.machine.diskLimits = wanted.machine.diskLimits
        self.machine.devices = wanted.machine.devices
        self.machine.processor = wanted.machine.processor
        (self.machine.nodes, self.machine.hugePageKiB) = (wanted.machine.nodes, wanted.machine.hugePageKiB)

        let oldRootGiB = request.instance.flavor?.rootGiB ?? request.instance.rootGiB
        let rootByteCount = byteCounts[Self.root] ?? 0
        // A flavor without a root disk's size takes the image's, which a disk that a flavor has grown is no more.
        guard wanted.rootByteCount > 0 ? wanted.rootByteCount >= rootByteCount : oldRootGiB == 0 else {
            throw Self.refusal("root", rootByteCount, wanted.rootByteCount)
        }
        if wanted.rootByteCount > rootByteCount { self.rootByteCount = wanted.rootByteCount }

        let sizes = Dictionary(wanted.emptyDisks.map { ($0.file, $0.byteCount) }, uniquingKeysWith: { first, _ in first })
        if let now = byteCounts[Self.ephemeral], sizes[Self.ephemeral] ?? 0 < now {
            throw Self.refusal("ephemeral", now, sizes[Self.ephemeral] ?? 0)
        }
        if let now = byteCounts[Self.swap], sizes[Self.swap] ?? 0 < now { worthless.append(Self.swap) }

        let files = wanted.emptyDisks.map(\.file)
        let others = machine.disks.filter { ![Self.root, Self.ephemeral, Self.swap].contains($0.file) }
        let extra = files.map { file in
            machine.disks.first { $0.file == file } ?? SavedMachine.Disk(id: "", file: file, isReadOnly: false)
        }
        let all = machine.disks.filter { $0.file == Self.root } + extra + others
        self.machine.disks = SavedMachine.Disk.numbered(all)
    }

    private static func refusal(_ disk: String, _ now: Int64, _ wanted: Int64) -> DriverError {
        let size = wanted == 0 ? "none" : gibibytes(wanted)
        return DriverError(
            novaClass: "ResizeError",
            tenantMessage:
                "Resize error: unable to resize disk down: the server's \(disk) disk has \(gibibytes(now)), the flavor's \(size). Choose a flavor whose disks are not smaller.",
            fault: .caller)
    }

    private static func gibibytes(_ byteCount: Int64) -> String {
        byteCount % (1 << 30) == 0 ? "\(byteCount >> 30) GiB" : "\(byteCount) bytes"
    }
}
