// Lists of CPUs: Nova's specification ("0-3,^2", nova.virt.hardware.parse_cpu_spec) and the kernel's ("0-3,8").

package struct CPUSet: Sendable, Equatable {
    package var numbers: Set<Int>

    package init(_ numbers: Set<Int>) { self.numbers = numbers }

    /// Nil where the text is neither form. A CPU number above 8191 (the kernel's largest) is refused, so that a range
    /// cannot fill memory.
    package init?(_ text: String) {
        var included: Set<Int> = []
        var excluded: Set<Int> = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let rule = part.filter { !$0.isWhitespace }
            if rule.isEmpty { continue }
            if rule.hasPrefix("^") {
                guard let number = Self.number(rule.dropFirst()) else { return nil }
                excluded.insert(number)
                continue
            }
            let bounds = rule.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
            guard let first = bounds.first.flatMap(Self.number), let last = bounds.last.flatMap(Self.number),
                first <= last
            else { return nil }
            included.formUnion(first...last)
        }
        numbers = included.subtracting(excluded)
    }

    package var count: Int { numbers.count }
    package var sorted: [Int] { numbers.sorted() }

    private static func number(_ text: some StringProtocol) -> Int? {
        guard let number = Int(text), (0...8191).contains(number) else { return nil }
        return number
    }
}
