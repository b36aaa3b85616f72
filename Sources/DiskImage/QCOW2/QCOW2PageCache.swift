// L2 tables and refcount blocks in bounded memory: pages of them by their place in the file, with what was changed in each.
//
// The cache never writes by itself. Its owner writes changed pages in the order that crashes demand, then marks them clean.

struct QCOW2PageCache: Sendable {
    /// In which step of writing back a changed page goes to the file.
    enum Kind: Sendable { case refcounts, mappings }

    private struct Page: Sendable {
        var bytes: [UInt8]
        var changed: Kind?
        var lastUse: UInt64
    }

    /// A page, in bytes: a cluster, at most 4 KiB, so that large clusters do not make large caches.
    let pageByteCount: UInt64
    let capacity: Int
    private var pages: [UInt64: Page] = [:]
    private var clock: UInt64 = 0
    private(set) var changedCount = 0

    init(clusterByteCount: UInt64, byteLimit: Int) {
        pageByteCount = min(clusterByteCount, 4096)
        // A request holds at most a refcount page and a mapping page at once.
        capacity = max(16, byteLimit / Int(pageByteCount))
    }

    /// The start of the page that holds byte `offset` of the file.
    func pageOffset(_ offset: UInt64) -> UInt64 { offset & ~(pageByteCount - 1) }

    func contains(_ page: UInt64) -> Bool { pages[page] != nil }

    /// True when a new page would need room that only a write-back can make.
    var isFullOfChanges: Bool { changedCount >= capacity - 2 }

    /// Takes in a page that was read from the file; forgets the least used unchanged ones where there is no room.
    mutating func insert(_ bytes: [UInt8], at page: UInt64) {
        clock &+= 1
        if pages.count >= capacity {
            // A quarter at once, so that the sorting is rare.
            let unchanged = pages.filter { $0.value.changed == nil }.sorted { $0.value.lastUse < $1.value.lastUse }
            for (offset, _) in unchanged.prefix(max(1, capacity / 4)) { pages[offset] = nil }
        }
        pages[page] = Page(bytes: bytes, changed: nil, lastUse: clock)
    }

    /// Reads a page that is there; nil otherwise.
    mutating func read<R>(_ page: UInt64, _ body: ([UInt8]) -> R) -> R? {
        clock &+= 1
        pages[page]?.lastUse = clock
        return pages[page].map { body($0.bytes) }
    }

    /// Changes a page that is there: whoever loaded it has loaded nothing since.
    mutating func change(_ page: UInt64, _ kind: Kind, _ body: (inout [UInt8]) -> Void) {
        guard let index = pages.index(forKey: page) else {
            preconditionFailure("a page is changed right after it was loaded; a lost change would damage the image")
        }
        clock &+= 1
        if pages.values[index].changed == nil { changedCount += 1 }
        pages.values[index].changed = kind
        pages.values[index].lastUse = clock
        body(&pages.values[index].bytes)
    }

    /// The changed pages of one kind, in the file's order.
    func changed(_ kind: Kind) -> [(offset: UInt64, bytes: [UInt8])] {
        pages.filter { $0.value.changed == kind }.map { ($0.key, $0.value.bytes) }.sorted { $0.offset < $1.offset }
    }

    func hasChanges(_ kind: Kind) -> Bool { changedCount > 0 && pages.contains { $0.value.changed == kind } }

    mutating func markWritten(_ page: UInt64) {
        if pages[page]?.changed != nil { changedCount -= 1 }
        pages[page]?.changed = nil
    }

    /// Forgets the pages of a cluster that is used for something else from now on.
    mutating func forget(cluster offset: UInt64, byteCount: UInt64) {
        for page in stride(from: offset, to: offset &+ byteCount, by: Int(pageByteCount)) where pages[page] != nil {
            markWritten(page)
            pages[page] = nil
        }
    }
}
