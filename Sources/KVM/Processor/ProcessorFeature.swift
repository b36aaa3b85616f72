// The names of CPUID's feature bits, as libvirt and QEMU write them (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E).

/// One register of one leaf.
package struct CPUIDRegister: Hashable, Sendable {
    package enum Name: Hashable, Sendable { case eax, ebx, ecx, edx }
    package let function: UInt32
    package let index: UInt32
    package let name: Name

    package init(_ function: UInt32, _ index: UInt32 = 0, _ name: Name) {
        self.function = function
        self.index = index
        self.name = name
    }
}

/// One bit of one register.
package struct ProcessorFeature: Hashable, Sendable {
    package let register: CPUIDRegister
    package let bit: Int
    package var mask: UInt32 { 1 << UInt32(bit) }

    /// By name; nil for one that is not known.
    package static func named(_ name: String) -> ProcessorFeature? { byName[aliases[name] ?? name] }

    /// Every name, for completions and messages.
    package static var names: [String] { byName.keys.sorted() }

    /// Registers that hold named features.
    static let registers: [CPUIDRegister] = table.map(\.0)

    private static let aliases = [
        "sse3": "pni", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "pclmulqdq": "pclmuldq", "tsc_deadline": "tsc-deadline", "lm_lahf": "lahf_lm",
        "i64": "lm", "xd": "nx", "ffxsr": "fxsr_opt", "tsc-adjust": "tsc_adjust", "perfctr-core": "perfctr_core",
    ]

    private static let byName: [String: ProcessorFeature] = {
        var features: [String: ProcessorFeature] = [:]
        for (register, words) in table {
            for word in words.split(separator: " ") {
                let parts = word.split(separator: ":")
                guard parts.count == 2, let bit = Int(parts[0]), bit < 32 else { continue }
                features[String(parts[1])] = ProcessorFeature(register: register, bit: bit)
            }
        }
        return features
    }()

    /// "bit:name" for each named bit.
    private static let table: [(CPUIDRegister, String)] = [
        (
            CPUIDRegister(1, 0, .ecx),
            "0:pni 1:pclmuldq 2:dtes64 3:monitor 4:ds_cpl 5:vmx 6:smx 7:est 8:tm2 9:ssse3 10:cid 12:fma 13:cx16 14:xtpr 15:pdcm 17:pcid 18:dca 19:sse4.1 20:sse4.2 21:x2apic 22:movbe 23:popcnt 24:tsc-deadline 25:aes 26:xsave 28:avx 29:f16c 30:rdrand 31:hypervisor"
        ),
        (
            CPUIDRegister(1, 0, .edx),
            "0:fpu 1:vme 2:de 3:pse 4:tsc 5:msr 6:pae 7:mce 8:cx8 9:apic 11:sep 12:mtrr 13:pge 14:mca 15:cmov 16:pat 17:pse36 18:pn 19:clflush 21:ds 22:acpi 23:mmx 24:fxsr 25:sse 26:sse2 27:ss 28:ht 29:tm 31:pbe"
        ),
        (CPUIDRegister(6, 0, .eax), "2:arat"),
        (
            CPUIDRegister(7, 0, .ebx),
            "0:fsgsbase 1:tsc_adjust 2:sgx 3:bmi1 4:hle 5:avx2 7:smep 8:bmi2 9:erms 10:invpcid 11:rtm 14:mpx 16:avx512f 17:avx512dq 18:rdseed 19:adx 20:smap 21:avx512ifma 23:clflushopt 24:clwb 25:intel-pt 26:avx512pf 27:avx512er 28:avx512cd 29:sha-ni 30:avx512bw 31:avx512vl"
        ),
        (
            CPUIDRegister(7, 0, .ecx),
            "0:prefetchwt1 1:avx512vbmi 2:umip 3:pku 5:waitpkg 6:avx512vbmi2 7:shstk 8:gfni 9:vaes 10:vpclmulqdq 11:avx512vnni 12:avx512bitalg 14:avx512-vpopcntdq 16:la57 22:rdpid 24:bus-lock-detect 25:cldemote 27:movdiri 28:movdir64b 31:pks"
        ),
        (
            CPUIDRegister(7, 0, .edx),
            "2:avx512-4vnniw 3:avx512-4fmaps 4:fsrm 8:avx512-vp2intersect 10:md-clear 14:serialize 16:tsx-ldtrk 20:ibt 22:amx-bf16 23:avx512-fp16 24:amx-tile 25:amx-int8 26:spec-ctrl 27:stibp 28:flush-l1d 29:arch-capabilities 30:core-capability 31:ssbd"
        ),
        (CPUIDRegister(7, 1, .eax), "4:avx-vnni 5:avx512-bf16 10:fzrm 11:fsrs 12:fsrc 21:amx-fp16 23:avx-ifma"),
        (CPUIDRegister(0xD, 1, .eax), "0:xsaveopt 1:xsavec 2:xgetbv1 3:xsaves 4:xfd"),
        (
            CPUIDRegister(0x8000_0001, 0, .ecx),
            "0:lahf_lm 1:cmp_legacy 2:svm 3:extapic 4:cr8legacy 5:abm 6:sse4a 7:misalignsse 8:3dnowprefetch 9:osvw 10:ibs 11:xop 12:skinit 13:wdt 15:lwp 16:fma4 17:tce 19:nodeid_msr 21:tbm 22:topoext 23:perfctr_core 24:perfctr_nb"
        ),
        (CPUIDRegister(0x8000_0001, 0, .edx), "11:syscall 20:nx 22:mmxext 25:fxsr_opt 26:pdpe1gb 27:rdtscp 29:lm 30:3dnowext 31:3dnow"),
        (CPUIDRegister(0x8000_0007, 0, .edx), "8:invtsc"),
        (CPUIDRegister(0x8000_0008, 0, .ebx), "0:clzero 2:xsaveerptr 9:wbnoinvd 12:ibpb 14:ibrs 15:amd-stibp 24:amd-ssbd 25:virt-ssbd 26:amd-no-ssb"),
        (
            CPUIDRegister(0x8000_000A, 0, .edx),
            "0:npt 1:lbrv 2:svm-lock 3:nrip-save 4:tsc-scale 5:vmcb-clean 6:flushbyasid 7:decodeassists 10:pause-filter 12:pfthreshold"
        ),
    ]

    /// Bits of AMD's leaf 0x80000001 EDX that repeat those of leaf 1.
    static let repeatedOnAMD: UInt32 = 0x0183_F3FF
}
