// A file that is said to be a saved machine: header, table, facts, layout of RAM and every section that it names. The targets of devices
// damage their own sections and use the device afterwards.
import Glibc
import HostSystem
import Machine

let savedStateTarget = FuzzTarget("saved-state", 4096) { input in
    let file = must { try makeMemoryFile(named: "state", byteCount: 0) }
    let bytes = input.rest()
    must { try writeAll(bytes, to: file.rawValue, at: 0, named: "state") }
    guard let state = try? StateFile(reading: file.rawValue) else { return }
    if state.memoryOffset % 4096 != 0 { finding("RAM at \(state.memoryOffset)") }
    for entry in state.entries {
        guard let section = try? state.section(entry.name, upTo: .max) else { continue }
        if section.bytes.count > bytes.count { finding("section \(entry.name) has more bytes than its file") }
    }
    if !state.summary.contains("saved state") { finding("it cannot be described") }
}
