// Which processor a guest sees, apart from its topology.

package struct ProcessorModel: Sendable, Equatable {
    /// What the features come from.
    package enum Base: Sendable, Equatable {
        /// All that the accelerator can show of the host's processor.
        case host
        /// A processor by libvirt's name for it, with what it has and the host can show.
        case named(String)
    }
    package var base: Base
    /// Features by libvirt's names: true: the guest has it, or there is no machine; false: it has not.
    package var features: [String: Bool]
    /// The guest does not read that it runs on this accelerator. Some drivers refuse to work where they do.
    package var hidesAccelerator: Bool
    /// Interfaces of Microsoft's hypervisor, which Windows uses (Hypervisor Top-Level Functional Specification).
    package var enlightenments: Set<Enlightenment>

    package init(
        base: Base = .host, features: [String: Bool] = [:], hidesAccelerator: Bool = false, enlightenments: Set<Enlightenment> = []
    ) {
        self.base = base
        self.features = features
        self.hidesAccelerator = hidesAccelerator
        self.enlightenments = enlightenments
    }
}

/// By libvirt's names below <hyperv>, "stimer" and so on; "time" is its hypervclock timer.
package enum Enlightenment: String, Sendable, CaseIterable {
    case relaxed, vapic, spinlocks, vpindex, runtime, time, synic, stimer, reset, frequencies, tlbflush, ipi

    /// What this one cannot do without.
    package var needs: Set<Enlightenment> {
        switch self {
        case .synic, .tlbflush, .ipi: [.vpindex]
        case .stimer: [.vpindex, .synic, .time]
        case .frequencies: [.time]
        default: []
        }
    }
}
