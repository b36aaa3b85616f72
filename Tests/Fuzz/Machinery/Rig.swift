// A device under test, and a sequence of accesses read from the input: registers of every width, strings, configuration space,
// resets, saved state that goes into a fresh device, saved state that was damaged on the way.
//
// Oracles beside a trap: a device takes its own saved state, to the last byte, and saves the same again.
import MachineCore
import PCI

final class Rig {
    struct Window {
        let device: any BusDevice
        let first: UInt64
        let byteCount: Int
    }
    var windows: [Window] = []
    var functions: [any PCIFunction] = []
    /// The sections of saved state, in the order they are restored in.
    var sections: [any SavableDevice] = []
    /// What else may happen to it: memory, time, the host's side.
    var actions: [(inout Input) -> Void] = []
    var reset: () -> Void = {}
    /// Brings it to rest, to be saved.
    var pause: () -> Void = {}
    var resume: () -> Void = {}
    /// Takes it off the loop.
    var dispose: () -> Void = {}

    func add(_ device: any BusDevice, first: UInt64 = 0, byteCount: Int) {
        windows.append(Window(device: device, first: first, byteCount: byteCount))
    }

    fileprivate func save() -> [[UInt8]] {
        sections.map {
            var writer = StateWriter()
            $0.saveState(into: &writer)
            return writer.bytes
        }
    }

    /// Nil where one section was refused.
    fileprivate func restore(_ state: [[UInt8]]) -> DeviceStateError? {
        for (section, bytes) in zip(sections, state) {
            var reader = StateReader(section: section.stateName, bytes: bytes)
            do throws(DeviceStateError) {
                try section.restoreState(from: &reader, version: type(of: section).stateVersion)
            } catch { return error }
        }
        return nil
    }
}

private let widths: [AccessWidth] = [.byte, .word, .doubleWord, .quadWord]

/// Applies the input to rigs made by `make`, which makes the same one each time.
func drive(_ input: inout Input, _ make: () -> Rig) {
    Bench.clear()
    var rig = make()
    var copies = 0
    while !input.isEmpty {
        let operation = input.byte()
        if operation >= 0x70, !rig.actions.isEmpty {
            rig.actions[Int(operation) % rig.actions.count](&input)
            continue
        }
        switch operation & 15 {
        case 0...5 where !rig.windows.isEmpty:
            let window = rig.windows[input.below(rig.windows.count)], width = widths[Int(operation >> 4 & 3)]
            let offset = window.first + UInt64(input.below(window.byteCount))
            var value: UInt64 = 0
            for index in 0..<width.byteCount { value |= UInt64(input.byte()) << UInt64(8 * index) }
            window.device.write(offset: offset, width: width, value: value)
        case 6...8 where !rig.windows.isEmpty:
            let window = rig.windows[input.below(rig.windows.count)]
            _ = window.device.read(offset: window.first + UInt64(input.below(window.byteCount)), width: widths[Int(operation >> 4 & 3)])
        case 9 where !rig.windows.isEmpty:
            let window = rig.windows[input.below(rig.windows.count)]
            let offset = window.first + UInt64(input.below(window.byteCount))
            window.device.readString(offset: offset, width: widths[Int(operation >> 4 & 3)], count: Int(input.byte())) { _, _ in }
        case 10, 11:
            guard !rig.functions.isEmpty else { break }
            let function = rig.functions[input.below(rig.functions.count)], width = widths[Int(operation >> 4 & 3) % 3]
            let offset = Int(input.byte()) & ~(width.byteCount - 1)
            if operation & 1 == 0 {
                function.writeConfiguration(offset: offset, width: width, value: UInt64(input.number(UInt32.self)) & width.allOnes)
            } else {
                _ = function.readConfiguration(offset: offset, width: width)
            }
        case 12:
            rig.pause()
            rig.reset()
            rig.resume()
        case 13, 14:
            copies += 1
            if copies <= 8 { carryOver(&rig, &input, isDamaged: operation & 15 == 14, make) }
        default: break
        }
    }
    rig.pause()
    rig.dispose()
}

/// Saves the rig and goes on with a fresh one that has its state.
private func carryOver(_ rig: inout Rig, _ input: inout Input, isDamaged: Bool, _ make: () -> Rig) {
    guard !rig.sections.isEmpty else { return }
    rig.pause()
    var state = rig.save()
    if isDamaged {
        let section = input.below(state.count)
        for _ in 0..<(1 + Int(input.byte() & 7)) where !state[section].isEmpty {
            state[section][input.below(state[section].count)] = input.byte()
        }
        if input.byte() & 15 == 0 { state[section].removeLast(input.below(state[section].count + 1)) }
    }
    let fresh = make()
    fresh.pause()
    if let error = fresh.restore(state) {
        if !isDamaged { finding("the device refuses its own saved state: \(error)") }
        fresh.dispose()
        rig.resume()
        return
    }
    let again = fresh.save()
    if !isDamaged, again != state { differ(state, again, fresh.sections) }
    if isDamaged {
        // What was taken is taken a second time, and stays.
        let third = make()
        third.pause()
        if let error = third.restore(again) { finding("what was restored and saved is refused: \(error)") }
        let last = third.save()
        if last != again { differ(again, last, third.sections) }
        third.dispose()
    }
    rig.dispose()
    rig = fresh
    rig.resume()
}

private func differ(_ first: [[UInt8]], _ second: [[UInt8]], _ sections: [any SavableDevice]) -> Never {
    for (index, section) in sections.enumerated() where first[index] != second[index] {
        let place = zip(first[index], second[index]).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? -1
        finding("saved state of \(section.stateName) changes on its way, first at byte \(place) of \(first[index].count)")
    }
    finding("saved state changes")
}
