// fw_cfg: the items that a machine hands to its firmware, by number and by name (QEMU, docs/specs/fw_cfg.rst). A plain value: the
// selector, the place in the item, and the items' bytes.
//
// Files get their numbers in the order of their names, so that the same set always has the same numbers.

/// The items, before the machine starts.
package struct FirmwareItems: Sendable {
    package enum Content: Sendable {
        case bytes([UInt8])
        /// Bytes of a kernel or RAM disk.
        case file(ImageFile, offset: UInt64, byteCount: UInt64)
    }
    /// Numbers of the items without a name.
    package enum Key {
        package static let signature: UInt16 = 0x00, identity: UInt16 = 0x01, uuid: UInt16 = 0x02, memorySize: UInt16 = 0x03
        package static let noGraphic: UInt16 = 0x04, processorCount: UInt16 = 0x05
        package static let kernelSize: UInt16 = 0x08, initrdSize: UInt16 = 0x0B, bootMenu: UInt16 = 0x0E, processorLimit: UInt16 = 0x0F
        package static let kernelData: UInt16 = 0x11, initrdData: UInt16 = 0x12, commandLineSize: UInt16 = 0x14, commandLineData: UInt16 = 0x15
        package static let setupSize: UInt16 = 0x17, setupData: UInt16 = 0x18, directory: UInt16 = 0x19
        package static let firstFile: UInt16 = 0x20
        package static let isaInterruptOverride: UInt16 = 0x8002
    }
    static let nameLimit = 55

    private(set) var numbered: [UInt16: Content] = [:]
    private(set) var files: [String: Content] = [:]
    private(set) var makers: [Maker] = []
    private(set) var writers: [String: @Sendable ([UInt8]) -> Void] = [:]

    /// Files that are made together.
    struct Maker: Sendable {
        let names: [String]
        let body: @Sendable () -> [String: [UInt8]]
    }

    package init() {
        add(Key.signature, .bytes(Array("QEMU".utf8)))
        // Bit 0: the ports; bit 1: DMA.
        add(Key.identity, .bytes([3, 0, 0, 0]))
    }

    package mutating func add(_ key: UInt16, _ content: Content) { numbered[key] = content }
    package mutating func add<Value: FixedWidthInteger>(_ key: UInt16, _ value: Value) {
        add(key, .bytes((0..<(Value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }))
    }

    /// - Parameter name: at most 55 bytes; a longer one is a mistake of ours.
    package mutating func addFile(_ name: String, _ content: Content) {
        precondition(name.utf8.count <= Self.nameLimit, "the directory has 55 bytes for a name")
        files[name] = content
    }

    /// A file that the guest writes by DMA; zeroes until then, and again after a reset. `body` is told the whole content after each
    /// write, reset and restore, on a vCPU thread or the driver's, under the interface's lock: it is a leaf.
    package mutating func addWritableFile(_ name: String, byteCount: Int, _ body: @escaping @Sendable ([UInt8]) -> Void) {
        addFile(name, .bytes([UInt8](repeating: 0, count: byteCount)))
        writers[name] = body
    }

    /// Files that tell of each other, made when the guest first selects one of them after a reset: by then firmware has placed what
    /// they tell of. Their lengths may not depend on it.
    package mutating func addFiles(_ names: [String], _ body: @escaping @Sendable () -> [String: [UInt8]]) {
        for name in names { addFile(name, .bytes([])) }
        makers.append(Maker(names: names, body: body))
    }
}

/// The interface's registers.
package struct FWCfg: Sendable {
    private var items: [UInt16: FirmwareItems.Content]
    private let makers: [FirmwareItems.Maker]
    private var madeKeys: Set<UInt16> = []
    private var writers: [UInt16: @Sendable ([UInt8]) -> Void] = [:]
    /// What was made is what firmware took: it does not change before the next reset.
    private var isFinal = false
    /// The directory's entries, in the order of their names.
    private var entries: [(key: UInt16, name: String)] = []
    package private(set) var selector: UInt16 = 0
    package private(set) var position: UInt32 = 0
    package var dmaAddress: UInt64 = 0

    package init(_ items: FirmwareItems) {
        self.items = items.numbered
        makers = items.makers
        var key = FirmwareItems.Key.firstFile
        for (name, content) in items.files.sorted(by: { $0.key < $1.key }) {
            self.items[key] = content
            entries.append((key, name))
            key += 1
        }
        for (name, body) in items.writers { if let key = self.key(of: name) { writers[key] = body } }
        madeKeys = Set(makers.flatMap(\.names).compactMap(self.key(of:)))
    }

    package mutating func reset() {
        selector = 0
        position = 0
        dmaAddress = 0
        isFinal = false
        for key in writers.keys { setContent(key, [UInt8](repeating: 0, count: Int(byteCount(of: key)))) }
    }

    package mutating func select(_ key: UInt16) {
        selector = key
        position = 0
        if madeKeys.contains(key) {
            make()
            isFinal = true
        } else if key == FirmwareItems.Key.directory {
            // Lengths alone count here, and they are the same whatever firmware still changes.
            make()
            items[key] = .bytes(directory)
        }
    }

    private mutating func make() {
        guard !isFinal else { return }
        for maker in makers {
            let made = maker.body()
            for name in maker.names { if let key = key(of: name) { items[key] = .bytes(made[name] ?? []) } }
        }
    }

    private func byteCount(of key: UInt16) -> UInt64 {
        switch items[key] {
        case .bytes(let bytes): UInt64(bytes.count)
        case .file(_, _, let byteCount): byteCount
        case nil: 0
        }
    }

    /// The file directory (0x19): a count, then entries of 64 bytes, numbers big-endian.
    private var directory: [UInt8] {
        func big(_ value: UInt64, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) } }
        return entries.reduce(into: big(UInt64(entries.count), 4)) { bytes, entry in
            let name = Array(entry.name.utf8)
            bytes += big(byteCount(of: entry.key), 4) + big(UInt64(entry.key), 2) + [0, 0] + name + [UInt8](repeating: 0, count: 56 - name.count)
        }
    }

    /// The number of a file, for tests and saved state.
    package func key(of name: String) -> UInt16? { entries.first { $0.name == name }?.key }

    /// The next bytes of the selected item, at most `limit`; beyond its end zeroes. Moves on.
    package mutating func take(_ limit: Int) -> [UInt8] {
        let start = UInt64(position), end = start + UInt64(max(limit, 0))
        skip(UInt32(clamping: max(limit, 0)))
        let padded: ([UInt8]) -> [UInt8] = { $0 + [UInt8](repeating: 0, count: max(limit - $0.count, 0)) }
        switch items[selector] {
        case nil: return padded([])
        case .bytes(let bytes): return padded(Self.slice(bytes, start, end))
        case .file(let file, let offset, let byteCount):
            guard start < byteCount else { return padded([]) }
            // A file that cannot be read any more reads as zeroes: firmware has no way to be told.
            return padded((try? file.bytes(at: offset + start, count: Int(min(end, byteCount) - start))) ?? [])
        }
    }

    /// Bytes that the next write of the selected item may have; nil: it may not be written.
    var writableByteCount: UInt64? {
        guard writers[selector] != nil else { return nil }
        let byteCount = byteCount(of: selector)
        return byteCount > UInt64(position) ? byteCount - UInt64(position) : 0
    }

    /// Replaces the next bytes of the selected item, as many as `writableByteCount` allows. Moves on.
    mutating func put(_ bytes: [UInt8]) {
        guard let limit = writableByteCount, UInt64(bytes.count) <= limit, case .bytes(var content) = items[selector] else { return }
        content.replaceSubrange(Int(position)..<(Int(position) + bytes.count), with: bytes)
        skip(UInt32(clamping: bytes.count))
        setContent(selector, content)
    }

    private mutating func setContent(_ key: UInt16, _ content: [UInt8]) {
        items[key] = .bytes(content)
        writers[key]?(content)
    }

    /// What the guest wrote, by name, for saved state.
    var written: [(name: String, bytes: [UInt8])] {
        entries.compactMap { entry in
            guard writers[entry.key] != nil, case .bytes(let bytes) = items[entry.key] else { return nil }
            return (entry.name, bytes)
        }
    }

    /// False where there is no such file of this length.
    mutating func restore(_ name: String, _ bytes: [UInt8]) -> Bool {
        guard let key = key(of: name), writers[key] != nil, byteCount(of: key) == UInt64(bytes.count) else { return false }
        setContent(key, bytes)
        return true
    }

    package mutating func skip(_ count: UInt32) { position = position.addingReportingOverflow(count).overflow ? .max : position + count }

    private static func slice(_ bytes: [UInt8], _ start: UInt64, _ end: UInt64) -> [UInt8] {
        guard start < UInt64(bytes.count) else { return [] }
        return Array(bytes[Int(start)..<Int(min(end, UInt64(bytes.count)))])
    }

    mutating func restore(selector: UInt16, position: UInt32, dmaAddress: UInt64) {
        select(selector)
        self.position = position
        self.dmaAddress = dmaAddress
    }
}
