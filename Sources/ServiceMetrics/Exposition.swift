// The Prometheus text format 0.0.4: HELP and TYPE once a family, then its samples. Families of the same name that several
// sources report (one a guest) are joined, because the format allows each name once; of samples with equal labels the first
// stays.

package enum Exposition {
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    package static func text(_ families: [MetricFamily]) -> String {
        var text = ""
        for family in joined(families) where !family.samples.isEmpty {
            text += "# HELP \(family.name) \(escapeHelp(family.help))\n# TYPE \(family.name) \(family.kind.rawValue)\n"
            for sample in family.samples { write(sample, of: family.name, to: &text) }
        }
        return text
    }

    private static func joined(_ families: [MetricFamily]) -> [MetricFamily] {
        var byName: [String: MetricFamily] = [:]
        var seen: Set<String> = []
        for family in families {
            let fresh = family.samples.filter {
                seen.insert(family.name + labels($0.labels.sorted { $0 < $1 })).inserted
            }
            // A name has one type: a second source that disagrees is left out rather than spoiling the scrape.
            if let known = byName[family.name], known.kind != family.kind { continue }
            byName[family.name, default: MetricFamily(family.name, family.kind, help: family.help, samples: [])]
                .samples += fresh
        }
        return byName.values.sorted { $0.name < $1.name }
    }

    private static func write(_ sample: MetricSample, of name: String, to text: inout String) {
        switch sample.value {
        case .number(let value):
            text += "\(name)\(labels(sample.labels)) \(number(value))\n"
        case .distribution(let buckets, let count, let sum):
            for bucket in buckets {
                text += "\(name)_bucket\(labels(sample.labels + [("le", number(bucket.bound))])) \(bucket.count)\n"
            }
            text += "\(name)_bucket\(labels(sample.labels + [("le", "+Inf")])) \(count)\n"
            text +=
                "\(name)_sum\(labels(sample.labels)) \(number(sum))\n\(name)_count\(labels(sample.labels)) \(count)\n"
        }
    }

    private static func labels(_ labels: [(String, String)]) -> String {
        labels.isEmpty ? "" : "{" + labels.map { "\($0.0)=\"\(escapeValue($0.1))\"" }.joined(separator: ",") + "}"
    }

    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        if let whole = Int64(exactly: value) { return "\(whole)" }
        return "\(value)"
    }

    private static func escapeHelp(_ text: String) -> String { escape(text, quotes: false) }
    private static func escapeValue(_ text: String) -> String { escape(text, quotes: true) }

    private static func escape(_ text: String, quotes: Bool) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\"" where quotes: escaped += "\\\""
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
