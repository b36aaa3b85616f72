// Processors by libvirt's names: what each generation has that the one before had not. A guest that is to move between hosts gets one
// that all of them can be.

/// A processor that many hosts can be.
package struct NamedProcessor: Sendable, Equatable {
    package let name: String
    /// Largest basic leaf.
    package let level: UInt32
    package let family, model, stepping: UInt32
    /// Leaf 0x80000002 to 4, at most 48 bytes.
    package let brand: String
    package let features: Set<String>

    package static func named(_ name: String) -> NamedProcessor? { all.first { $0.name == name } }

    /// Leaf 1 EAX: family and model beyond 15 have fields of their own.
    var signature: UInt32 {
        let (base, extended) = family >= 15 ? (15, family - 15) : (family, 0)
        return extended << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4 | stepping & 15
    }

    private init(
        _ name: String, level: UInt32 = 0xD, _ family: UInt32, _ model: UInt32, _ stepping: UInt32, _ brand: String,
        _ features: Set<String>
    ) {
        self.name = name
        self.level = level
        self.family = family
        self.model = model
        self.stepping = stepping
        self.brand = brand
        self.features = features
    }

    private static func words(_ text: String) -> Set<String> { Set(text.split(separator: " ").map(String.init)) }

    // What is common to all of them: a 64-bit processor of 2003.
    private static let plain = words(
        "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 nx lm syscall pni")

    // Intel, each generation on the one before.
    private static let nehalem = plain.union(words("ssse3 cx16 sse4.1 sse4.2 popcnt lahf_lm"))
    private static let westmere = nehalem.union(["aes"])
    private static let sandyBridge = westmere.union(words("pclmuldq x2apic tsc-deadline xsave avx rdtscp"))
    private static let ivyBridge = sandyBridge.union(words("f16c rdrand fsgsbase smep erms vme"))
    private static let haswell = sandyBridge.union(words("fma pcid movbe fsgsbase bmi1 avx2 smep bmi2 erms invpcid"))
    private static let broadwell = haswell.union(words("rdseed adx smap 3dnowprefetch"))
    private static let skylake = broadwell.union(words("vme f16c rdrand abm arat xsaveopt xsavec xgetbv1"))
    private static let skylakeServer = skylake.union(words("pdpe1gb clwb avx512f avx512dq avx512cd avx512bw avx512vl"))
    private static let cascadelake = skylakeServer.union(words("clflushopt avx512vnni spec-ctrl ssbd"))
    private static let icelakeServer = cascadelake.union(
        words("pku umip avx512vbmi avx512vbmi2 gfni vaes vpclmulqdq avx512bitalg avx512-vpopcntdq la57 wbnoinvd"))
    private static let sapphireRapids = icelakeServer.union(
        words(
            "avx512ifma sha-ni rdpid bus-lock-detect fsrm serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 arch-capabilities avx-vnni avx512-bf16 fzrm fsrs fsrc xsaves xfd"
        ))
    private static let tsx = words("hle rtm")

    // AMD.
    private static let opteronG3 = plain.union(words("cx16 popcnt lahf_lm abm sse4a misalignsse rdtscp svm"))
    private static let opteronG4 = opteronG3.union(words("ssse3 sse4.1 sse4.2 aes pclmuldq xsave avx 3dnowprefetch fma4 xop pdpe1gb"))
    private static let opteronG5 = opteronG4.union(words("fma f16c tbm"))
    private static let epyc = plain.union(
        words(
            "vme ssse3 sse4.1 sse4.2 fma cx16 movbe popcnt aes pclmuldq xsave avx f16c rdrand mmxext fxsr_opt pdpe1gb rdtscp lahf_lm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni xsaveopt xsavec xgetbv1 arat svm"
        ))
    private static let rome = epyc.union(
        words("clwb umip rdpid ibpb amd-stibp wbnoinvd clzero xsaveerptr perfctr_core npt nrip-save"))
    private static let milan = rome.union(words("pcid ibrs amd-ssbd invpcid pku fsrm erms xsaves"))
    private static let genoa = milan.union(
        words(
            "avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512vbmi avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq avx512-bf16 la57"
        ))

    /// Parts of a model that a guest does without where its host does not nest guests.
    static let optional: Set<String> = ["svm", "npt", "nrip-save"]

    package static let all: [NamedProcessor] = [
        NamedProcessor("qemu64", 15, 107, 1, "QEMU Virtual CPU version 2.5+", plain.union(words("cx16 lahf_lm svm"))),
        NamedProcessor("kvm64", 15, 6, 1, "Common KVM processor", plain.union(words("cx16"))),
        NamedProcessor("Nehalem", level: 11, 6, 26, 3, "Intel Core i7 9xx (Nehalem Class Core i7)", nehalem),
        NamedProcessor("Nehalem-IBRS", level: 11, 6, 26, 3, "Intel Core i7 9xx (Nehalem Core i7, IBRS)", nehalem.union(["spec-ctrl"])),
        NamedProcessor("Westmere", level: 11, 6, 44, 1, "Westmere E56xx/L56xx/X56xx (Nehalem-C)", westmere),
        NamedProcessor("Westmere-IBRS", level: 11, 6, 44, 1, "Westmere E56xx/L56xx/X56xx (IBRS update)", westmere.union(["spec-ctrl"])),
        NamedProcessor("SandyBridge", 6, 42, 1, "Intel Xeon E312xx (Sandy Bridge)", sandyBridge),
        NamedProcessor("SandyBridge-IBRS", 6, 42, 1, "Intel Xeon E312xx (Sandy Bridge, IBRS update)", sandyBridge.union(["spec-ctrl"])),
        NamedProcessor("IvyBridge", 6, 58, 9, "Intel Xeon E3-12xx v2 (Ivy Bridge)", ivyBridge),
        NamedProcessor("IvyBridge-IBRS", 6, 58, 9, "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)", ivyBridge.union(["spec-ctrl"])),
        NamedProcessor("Haswell", 6, 60, 4, "Intel Core Processor (Haswell)", haswell.union(tsx)),
        NamedProcessor("Haswell-noTSX", 6, 60, 1, "Intel Core Processor (Haswell, no TSX)", haswell),
        NamedProcessor("Haswell-noTSX-IBRS", 6, 60, 1, "Intel Core Processor (Haswell, no TSX, IBRS)", haswell.union(["spec-ctrl"])),
        NamedProcessor("Broadwell", 6, 61, 2, "Intel Core Processor (Broadwell)", broadwell.union(tsx)),
        NamedProcessor("Broadwell-noTSX", 6, 61, 2, "Intel Core Processor (Broadwell, no TSX)", broadwell),
        NamedProcessor("Broadwell-noTSX-IBRS", 6, 61, 2, "Intel Core Processor (Broadwell, no TSX, IBRS)", broadwell.union(["spec-ctrl"])),
        NamedProcessor("Skylake-Client", 6, 94, 3, "Intel Core Processor (Skylake)", skylake.union(tsx)),
        NamedProcessor("Skylake-Client-noTSX-IBRS", 6, 94, 3, "Intel Core Processor (Skylake, IBRS, no TSX)", skylake.union(["spec-ctrl"])),
        NamedProcessor("Skylake-Server", 6, 85, 4, "Intel Xeon Processor (Skylake)", skylakeServer.union(tsx)),
        NamedProcessor("Skylake-Server-IBRS", 6, 85, 4, "Intel Xeon Processor (Skylake, IBRS)", skylakeServer.union(tsx).union(["spec-ctrl"])),
        NamedProcessor("Skylake-Server-noTSX-IBRS", 6, 85, 4, "Intel Xeon Processor (Skylake, IBRS, no TSX)", skylakeServer.union(["spec-ctrl"])),
        NamedProcessor("Cascadelake-Server", 6, 85, 6, "Intel Xeon Processor (Cascadelake)", cascadelake.union(tsx)),
        NamedProcessor("Cascadelake-Server-noTSX", 6, 85, 6, "Intel Xeon Processor (Cascadelake)", cascadelake),
        NamedProcessor("Icelake-Server", 6, 106, 6, "Intel Xeon Processor (Icelake)", icelakeServer.union(tsx)),
        NamedProcessor("Icelake-Server-noTSX", 6, 106, 6, "Intel Xeon Processor (Icelake)", icelakeServer),
        NamedProcessor("SapphireRapids", level: 0x20, 6, 143, 4, "Intel Xeon Processor (SapphireRapids)", sapphireRapids.union(tsx)),
        NamedProcessor("Opteron_G3", level: 5, 16, 2, 3, "AMD Opteron 23xx (Gen 3 Class Opteron)", opteronG3),
        NamedProcessor("Opteron_G4", 21, 1, 2, "AMD Opteron 62xx class CPU", opteronG4),
        NamedProcessor("Opteron_G5", 21, 2, 0, "AMD Opteron 63xx class CPU", opteronG5),
        NamedProcessor("EPYC", 23, 1, 2, "AMD EPYC Processor", epyc),
        NamedProcessor("EPYC-IBPB", 23, 1, 2, "AMD EPYC Processor (with IBPB)", epyc.union(["ibpb"])),
        NamedProcessor("EPYC-Rome", 23, 49, 0, "AMD EPYC-Rome Processor", rome),
        NamedProcessor("EPYC-Milan", 25, 1, 1, "AMD EPYC-Milan Processor", milan),
        NamedProcessor("EPYC-Genoa", 25, 17, 0, "AMD EPYC-Genoa Processor", genoa),
    ]
}
