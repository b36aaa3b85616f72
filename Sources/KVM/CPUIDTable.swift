// The CPUID leaves a guest sees: the host's supported ones, with this guest's topology written over them.
// Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
import CKVM
import HostSystem
package import MachineCore

/// One leaf as the processor answers it.
package struct CPUIDLeaf: Sendable, Equatable {
    package var function: UInt32
    package var index: UInt32
    package var flags: UInt32
    package var eax, ebx, ecx, edx: UInt32

    package init(function: UInt32, index: UInt32 = 0, flags: UInt32 = 0, eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0) {
        self.function = function
        self.index = index
        self.flags = flags
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }
}

/// A list of leaves.
package struct CPUIDTable: Sendable, Equatable {
    package var leaves: [CPUIDLeaf]

    package init(leaves: [CPUIDLeaf]) {
        self.leaves = leaves
    }

    /// What KVM can show a guest on this host.
    init(supportedBy kvm: CInt) throws(AcceleratorError) {
        var entries = [kvm_cpuid_entry2](repeating: kvm_cpuid_entry2(), count: 256)
        // SAFETY: the shim writes at most `count` entries.
        let count = unsafe ckvm_supported_cpuid(kvm, &entries, CInt(entries.count))
        guard count >= 0 else { throw kvmError("KVM_GET_SUPPORTED_CPUID", "/dev/kvm") }
        leaves = entries[..<min(Int(count), entries.count)].map {
            CPUIDLeaf(function: $0.function, index: $0.index, flags: $0.flags, eax: $0.eax, ebx: $0.ebx, ecx: $0.ecx, edx: $0.edx)
        }
    }

    var entries: [kvm_cpuid_entry2] {
        leaves.map {
            var entry = kvm_cpuid_entry2()
            entry.function = $0.function
            entry.index = $0.index
            entry.flags = $0.flags
            entry.eax = $0.eax
            entry.ebx = $0.ebx
            entry.ecx = $0.ecx
            entry.edx = $0.edx
            return entry
        }
    }

    /// The table of vCPU `index`.
    package func adjusted(forVCPU index: Int, topology: ProcessorTopology) -> CPUIDTable {
        let apicID = topology.apicID(of: index)
        let threadWidth = ProcessorTopology.width(of: topology.threads)
        let packageWidth = threadWidth + ProcessorTopology.width(of: topology.cores)
        let perPackage = UInt32(topology.cores * topology.threads)
        var table = CPUIDTable(leaves: leaves.filter { $0.function != 0xB && $0.function != 0x1F })
        for position in table.leaves.indices {
            var leaf = table.leaves[position]
            switch leaf.function {
            case 1:
                // EBX: initial APIC id, logical processors; EDX 28: more than one of them. ECX 31: a hypervisor; 24: TSC deadline
                // (KVM offers it with its APIC without saying so here).
                leaf.ebx = leaf.ebx & 0x0000_FFFF | (min(perPackage, 255) << 16) | (apicID & 0xFF) << 24
                leaf.edx = perPackage > 1 ? leaf.edx | 1 << 28 : leaf.edx & ~(1 << 28)
                leaf.ecx |= 1 << 31 | 1 << 24 | 1 << 21
            case 4 where leaf.eax & 0x1F != 0:
                // Cache parameters: who shares it, how many cores in the package.
                let level = leaf.eax >> 5 & 7
                let sharing = level >= 3 ? (UInt32(1) << packageWidth) - 1 : (UInt32(1) << threadWidth) - 1
                leaf.eax = leaf.eax & 0x0000_3FFF | min(sharing, 0xFFF) << 14 | min((UInt32(1) << ProcessorTopology.width(of: topology.cores)) - 1, 63) << 26
            case 0x8000_001D where leaf.eax & 0x1F != 0:
                // AMD's cache parameters: the same, without the cores of the package.
                let sharing = leaf.eax >> 5 & 7 >= 3 ? UInt32(1) << packageWidth : UInt32(topology.threads)
                leaf.eax = leaf.eax & 0x0000_3FFF | min(sharing - 1, 0xFFF) << 14
            case 6:
                leaf.eax &= ~0b1011  // no turbo, no ARAT claims beyond bit 2, no thermal sensor
                leaf.eax |= 1 << 2  // ARAT: the APIC timer never stops
                leaf.ecx &= ~(1 << 3)
            case 0x8000_0008:
                leaf.ecx = perPackage > 1 ? leaf.ecx & ~0xF0FF | packageWidth << 12 | (perPackage - 1) & 0xFF : leaf.ecx & ~0xF0FF
            case 0x8000_001E:
                leaf.eax = apicID
                leaf.ebx = leaf.ebx & ~0xFFFF | UInt32(topology.threads - 1) << 8 | UInt32(index / topology.threads % topology.cores)
                leaf.ecx = UInt32(index / topology.threads / topology.cores) & 0xFF
            case 0x8000_0001:
                // AMD: core multi-processing legacy and topology extensions follow the topology.
                if perPackage > 1 { leaf.ecx |= 1 << 1 } else { leaf.ecx &= ~(1 << 1) }
            default: break
            }
            table.leaves[position] = leaf
        }
        for function in [UInt32(0xB), 0x1F] where function == 0xB || leaves.contains(where: { $0.function == 0x1F }) {
            let significant = UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
            table.leaves += [
                CPUIDLeaf(function: function, index: 0, flags: significant, eax: threadWidth, ebx: UInt32(topology.threads), ecx: 1 << 8, edx: apicID),
                CPUIDLeaf(function: function, index: 1, flags: significant, eax: packageWidth, ebx: perPackage, ecx: 2 << 8 | 1, edx: apicID),
                CPUIDLeaf(function: function, index: 2, flags: significant, ecx: 2, edx: apicID),
            ]
        }
        if let zero = table.leaves.firstIndex(where: { $0.function == 0 }) {
            table.leaves[zero].eax = max(table.leaves[zero].eax, 0xB)
        }
        return table
    }
}
