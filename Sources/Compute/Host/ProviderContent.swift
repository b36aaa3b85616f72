// What the root provider of a KVM host offers (contract §6.2): inventories and traits as functions of the driver's
// report, the configuration and what Placement has already.
import ComputeDriver
import JSON
package import Placement

/// The rules for inventories.
package struct InventoryRules: Sendable {
    package var ratios: AllocationRatios
    package var reservedCPUs: Int
    package var reservedMemoryMiB: Int
    package var reservedDiskMiB: Int

    package init(ratios: AllocationRatios, reservedCPUs: Int, reservedMemoryMiB: Int, reservedDiskMiB: Int) {
        self.ratios = ratios
        self.reservedCPUs = reservedCPUs
        self.reservedMemoryMiB = reservedMemoryMiB
        self.reservedDiskMiB = reservedDiskMiB
    }

    /// A class the host has nothing of is left out. A ratio is the configured one, else the one Placement has (an
    /// operator may have changed it there), else the initial one.
    package func inventories(vcpus: Int, memoryMiB: Int, diskGiB: Int, existing: [String: Inventory]) -> [String:
        Inventory]
    {
        func inventory(_ name: String, _ total: Int, _ reserved: Int, _ configured: Double?, _ initial: Double)
            -> Inventory?
        {
            guard total > 0 else { return nil }
            return Inventory(
                total: total, reserved: min(max(0, reserved), total), maxUnit: total,
                allocationRatio: configured ?? existing[name]?.allocationRatio ?? initial)
        }
        var inventories: [String: Inventory] = [:]
        inventories["VCPU"] = inventory("VCPU", vcpus, reservedCPUs, ratios.cpu, ratios.initialCPU)
        inventories["MEMORY_MB"] = inventory(
            "MEMORY_MB", memoryMiB, reservedMemoryMiB, ratios.memory, ratios.initialMemory)
        // The option is in MiB, the class in GiB: a part reserved is a whole one.
        let reservedGiB = reservedDiskMiB / 1024 + (reservedDiskMiB % 1024 == 0 ? 0 : 1)
        inventories["DISK_GB"] = inventory("DISK_GB", diskGiB, reservedGiB, ratios.disk, ratios.initialDisk)
        return inventories
    }
}

enum ProviderTraits {
    static let disabled = "COMPUTE_STATUS_DISABLED"

    /// The traits to write: ours as they are now, and those that someone else set and that are none of our business.
    static func merged(existing: Set<String>, own: Set<String>, isDisabled: Bool) -> Set<String> {
        let foreign = existing.filter { !isOurs($0) }
        return foreign.union(own).union(["COMPUTE_NODE"]).union(isDisabled ? [disabled] : [])
    }

    /// What this host has now, by the driver and its report. - Parameter excludedImageTypes: "raw", "qcow2", …
    static func own(driver: Set<String>, cpuInfo: JSONValue, excludedImageTypes: [String], ownsByTrait: Bool) -> Set<
        String
    > {
        var traits = driver.union(cpuTraits(features: cpuInfo["features"]?.arrayValue?.compactMap(\.stringValue) ?? []))
        if let threads = cpuInfo["topology"]?["threads"]?.intValue, threads > 1 {
            traits.insert("HW_CPU_HYPERTHREADING")
        }
        for type in excludedImageTypes { traits.remove("COMPUTE_IMAGE_TYPE_" + type.uppercased()) }
        if ownsByTrait { traits.insert("OWNER_NOVA") }
        return traits
    }

    /// A trait with one of these beginnings is set and removed by the compute service alone.
    private static func isOurs(_ trait: String) -> Bool {
        trait.hasPrefix("COMPUTE_") || trait.hasPrefix("HW_CPU_") || trait == "OWNER_NOVA"
    }

    /// Standard traits for CPU features, which come under the kernel's or libvirt's names. Placement refuses to create
    /// a trait that is neither standard nor custom, so this list holds only what os-traits has.
    static func cpuTraits(features: [String]) -> Set<String> {
        var traits: Set<String> = []
        for feature in features {
            let name = feature.lowercased().filter { $0.isLetter || $0.isNumber }
            for suffix in cpuTraitNames[name] ?? [] { traits.insert("HW_CPU_X86_" + suffix) }
        }
        return traits
    }

    private static let cpuTraitNames: [String: [String]] = {
        let same = [
            "3dnow", "abm", "avx", "avx2", "avx512bitalg", "avx512bw", "avx512cd", "avx512dq", "avx512er", "avx512f",
            "avx512ifma", "avx512pf", "avx512vbmi", "avx512vbmi2", "avx512vl", "avx512vnni", "avx512vpopcntdq", "bmi2",
            "f16c", "fma4", "mmx", "mpx", "sse", "sse2", "sse4a", "ssse3", "tbm", "vmx", "xop",
        ]
        var names = Dictionary(uniqueKeysWithValues: same.map { ($0, [$0.uppercased()]) })
        names["aes"] = ["AESNI"]
        names["bmi1"] = ["BMI"]
        names["fma"] = ["FMA3"]
        names["pclmuldq"] = ["CLMUL"]
        names["pclmulqdq"] = ["CLMUL"]
        names["pni"] = ["SSE3"]
        names["sse41"] = ["SSE41"]
        names["sse42"] = ["SSE42"]
        names["shani"] = ["SHA"]
        names["svm"] = ["SVM", "AMD_SVM"]
        return names
    }()
}
