// Microsoft's hypervisor interface in CPUID (Hypervisor Top-Level Functional Specification, "Feature and Interface Discovery"): its leaves
// begin at 0x40000000, where Windows looks; KVM's own move to 0x40000100, where Linux looks next.
import MachineCore

extension CPUIDTable {
    mutating func add(_ wanted: Set<Enlightenment>) throws(AcceleratorError) {
        for one in wanted.sorted(by: { $0.rawValue < $1.rawValue }) {
            let lacking = one.needs.subtracting(wanted)
            guard lacking.isEmpty else {
                throw AcceleratorError(
                    "show the guest Hyper-V's \(one.rawValue)", subject: "its processor", fault: .caller,
                    reason: "it needs \(lacking.map(\.rawValue).sorted().joined(separator: ", "))")
            }
        }
        // KVM's own leaves, unless they are hidden.
        for place in leaves.indices where 0x4000_0000..<0x4000_0100 ~= leaves[place].function {
            leaves[place].function += 0x100
            if leaves[place].function == 0x4000_0100 { leaves[place].eax = max(leaves[place].eax + 0x100, 0x4000_0101) }
        }
        leaves += Self.hyperVLeaves(wanted)
    }

    private static func hyperVLeaves(_ wanted: Set<Enlightenment>) -> [CPUIDLeaf] {
        // Partition privileges: hypercalls always; the VP's index, without which a guest trusts nothing else, as wanted.
        var privileges: UInt32 = 1 << 5, miscellaneous: UInt32 = 0, recommendations: UInt32 = 0
        let bits: [(Enlightenment, privileges: UInt32, miscellaneous: UInt32, recommendations: UInt32)] = [
            (.relaxed, 0, 0, 1 << 5), (.vapic, 1 << 4, 0, 1 << 3), (.runtime, 1, 0, 0), (.time, 1 << 1 | 1 << 9, 0, 0),
            (.synic, 1 << 2, 0, 0), (.stimer, 1 << 3, 0, 0), (.vpindex, 1 << 6, 0, 0), (.reset, 1 << 7, 0, 0),
            (.frequencies, 1 << 11, 1 << 8, 0), (.tlbflush, 0, 0, 1 << 2 | 1 << 11), (.ipi, 0, 0, 1 << 10 | 1 << 11),
        ]
        for (one, granted, misc, recommended) in bits where wanted.contains(one) {
            privileges |= granted
            miscellaneous |= misc
            recommendations |= recommended
        }
        return [
            // "Microsoft Hv"
            CPUIDLeaf(function: 0x4000_0000, eax: 0x4000_0006, ebx: 0x7263_694D, ecx: 0x666F_736F, edx: 0x7648_2074),
            // "Hv#1"
            CPUIDLeaf(function: 0x4000_0001, eax: 0x3123_7648),
            // Build 14393, version 10.0: Windows Server 2016.
            CPUIDLeaf(function: 0x4000_0002, eax: 0x3839, ebx: 0x000A_0000),
            CPUIDLeaf(function: 0x4000_0003, eax: privileges, edx: miscellaneous),
            // How often a spinlock is tried before the hypervisor is told: never, or Nova's 8191 times.
            CPUIDLeaf(function: 0x4000_0004, eax: recommendations, ebx: wanted.contains(.spinlocks) ? 0x1FFF : .max),
            CPUIDLeaf(function: 0x4000_0005, eax: 64),
            CPUIDLeaf(function: 0x4000_0006),
        ]
    }
}
