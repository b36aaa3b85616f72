// JSON, with what it writes read back.
import JSON

let jsonTarget = FuzzTarget("json", 4096) { input in
    let limits = JSONLimits(depth: 64, byteCount: 1 << 20, allowsNonFinite: input.byte() & 1 != 0)
    guard let value = try? JSONValue.parse(input.rest(), limits: limits) else { return }
    let text = value.serialize()
    guard let again = try? JSONValue.parse(text, limits: limits) else { finding("what was written is not read") }
    if again.serialize() != text { finding("what was written reads as something else") }
}
