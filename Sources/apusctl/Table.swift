// Columns for people, JSON for programs, from the same rows.
import JSON

struct Table {
    let columns: [String]
    var rows: [[String]] = []

    init(_ columns: String...) { self.columns = columns }

    func text(_ format: OutputFormat) -> String {
        switch format {
        case .json:
            let objects = rows.map { row in
                JSONValue.object(
                    Dictionary(zip(columns, row.map { .string($0) }), uniquingKeysWith: { first, _ in first }))
            }
            return JSONValue.array(objects).serialize() + "\n"
        case .table:
            let all = [columns.map { $0.uppercased() }] + rows
            let widths = columns.indices.map { column in all.map { Self.printable($0[column]).count }.max() ?? 0 }
            return all.map { row in
                let cells = row.enumerated().map { column, cell in
                    let text = Self.printable(cell)
                    return column == columns.count - 1
                        ? text : text + String(repeating: " ", count: widths[column] - text.count)
                }
                return cells.joined(separator: "  ") + "\n"
            }.joined()
        }
    }

    /// What comes from files and sockets does not move the cursor.
    private static func printable(_ text: String) -> String {
        String(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? " " : Character($0) })
    }
}
