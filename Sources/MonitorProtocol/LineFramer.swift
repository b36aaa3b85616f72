// Cuts a byte stream into lines. A line that does not end within the bound is an error after which nothing more comes out: where
// the next line would begin, nobody knows.

/// A line longer than its reader allows.
package struct LineTooLong: Error, Sendable, Equatable, CustomStringConvertible {
    package let limit: Int
    package init(limit: Int) { self.limit = limit }
    package var description: String { "read a line: longer than \(limit) bytes (peer)" }
}

/// The stream's bytes that are not taken as lines yet: never more than `limit` and what one `append` brought.
package struct LineFramer: Sendable {
    /// What the monitor reads.
    package static let requestLimit = 64 << 10
    /// What a client reads: a console's tail comes as text and in base64.
    package static let replyLimit = 16 << 20

    private let limit: Int
    private var bytes: [UInt8] = []
    /// Start of what is not taken yet.
    private var start = 0
    /// Up to here there is no line's end after `start`.
    private var searched = 0

    package init(limit: Int) {
        self.limit = max(limit, 1)
    }

    package mutating func append(_ more: some Collection<UInt8>) {
        if start > 0 {
            bytes.removeFirst(start)
            searched -= start
            start = 0
        }
        bytes.append(contentsOf: more)
    }

    /// Whether every byte was taken as part of a line.
    package var isEmpty: Bool { start == bytes.count }

    /// The next line without its end (a carriage return before it goes too); nil: more is needed.
    package mutating func next() throws(LineTooLong) -> [UInt8]? {
        // Once over the bound `searched` stays there, and every later call says the same.
        while searched < bytes.count, bytes[searched] != 0x0A {
            guard searched - start < limit else { throw LineTooLong(limit: limit) }
            searched += 1
        }
        guard searched < bytes.count else { return nil }
        var line = bytes[start..<searched]
        searched += 1
        start = searched
        if line.last == 0x0D { line.removeLast() }
        return Array(line)
    }
}
