// A board's saved state as a whole, damaged at several places or cut: sections, names, versions and lengths, into a fresh board. The
// targets of devices damage their sections one by one and use the device afterwards.
import Chipset
import Glibc
import HostSystem
import Machine
import MachineConfiguration
import MachineCore

private final class Sink: SerialOutput {
    func write(_ byte: UInt8) {}
}

private func makeBoard() -> Board {
    let disk = must { try makeMemoryFile(named: "disk", byteCount: 1 << 20).release() }
    let text = """
        {"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":64,"cpu":{"count":1},"kernel":{"fd":1000},
         "disks":[{"id":"a","fd":\(disk)}],"rng":true,"balloon":true}
        """
    return must {
        try Board(
            try GuestConfiguration(parsing: Array(text.utf8)), machine: FuzzMachine(), memory: Bench.memory, output: Sink(), power: FuzzPower(),
            loop: Bench.loop)
    }
}

// A board and its parts hold each other for as long as a machine lives, so two of them serve all inputs.
private let board = makeBoard(), second = makeBoard()
private let sound = board.saveState()

let savedStateTarget = FuzzTarget("saved-state", 1024) { input in
    var state = sound
    let damages = Int(input.byte() & 15)
    for _ in 0..<damages {
        let place = input.below(state.count)
        state[place] = input.byte()
    }
    let cut = input.number(UInt16.self)
    if cut & 1 != 0 { state.removeLast(Int(cut >> 1) % state.count) }
    if cut & 2 != 0 { state += input.rest() }
    board.reset()
    guard (try? board.restoreState(state)) != nil else { return }
    let again = board.saveState()
    do throws(DeviceStateError) { try second.restoreState(again) } catch { finding("what was restored and saved is refused: \(error)") }
    second.reset()
}
