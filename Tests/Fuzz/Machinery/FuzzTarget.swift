// What a target is, and how it says that it has found something.
import Glibc

struct FuzzTarget: Sendable {
    let name: String
    /// The longest input in bytes (libFuzzer's -max_len).
    let lengthLimit: Int
    let body: @Sendable (inout Input) -> Void

    init(_ name: String, _ lengthLimit: Int = 2048, _ body: @escaping @Sendable (inout Input) -> Void) {
        self.name = name
        self.lengthLimit = lengthLimit
        self.body = body
    }
}

extension FuzzTarget {
    /// The one that APUS_FUZZ_TARGET names; else the names and lengths are printed, and that is all.
    static let chosen: FuzzTarget = {
        if let name = unsafe getenv("APUS_FUZZ_TARGET").map({ unsafe String(cString: $0) }), let target = allTargets.first(where: { $0.name == name }) {
            return target
        }
        for target in allTargets { print(target.name, target.lengthLimit) }
        exit(0)
    }()
}

/// A finding that is no trap of its own: ends the process, so that libFuzzer keeps the input.
func finding(_ text: String) -> Never { fatalError("finding: \(text)") }

/// What cannot fail unless the host does.
func must<Value: ~Copyable>(_ body: () throws -> Value) -> Value {
    do { return try body() } catch { fatalError("the fuzzer's own machine: \(error)") }
}
