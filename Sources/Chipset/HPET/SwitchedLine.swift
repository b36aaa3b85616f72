// A line that can be taken off its input: the PIT's and the RTC's while the HPET stands in for them (IA-PC HPET 1.0a
// §2.3.3, LEG_RT_CNF).
//
//     let rtcLine = SwitchedLine(irq8)
//     hpet.onLegacyReplacement { rtcLine.setConnected(!$0) }
package import MachineCore
import Synchronization

package final class SwitchedLine: InterruptLine {
    private let state = Mutex<(isConnected: Bool, isAsserted: Bool)>((true, false))
    private let line: any InterruptLine

    package init(_ line: any InterruptLine) { self.line = line }

    package func assert() { set(isAsserted: true) }

    package func deassert() { set(isAsserted: false) }

    private func set(isAsserted: Bool) {
        state.withLock { state in
            state.isAsserted = isAsserted
            guard state.isConnected else { return }
            if isAsserted { line.assert() } else { line.deassert() }
        }
    }

    /// Off: the input is low. On again: it has the level that the line was driven to meanwhile. A leaf.
    package func setConnected(_ isConnected: Bool) {
        state.withLock { state in
            guard state.isConnected != isConnected else { return }
            state.isConnected = isConnected
            guard state.isAsserted else { return }
            if isConnected { line.assert() } else { line.deassert() }
        }
    }
}
