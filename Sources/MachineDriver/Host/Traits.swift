// The traits this driver can vouch for (contract §6.2): what it does today, and the CPU features its guests see.

enum Traits {
    /// Disks in the formats that are read, kernels and RAM disks from images; virtio networks; no display.
    static let always: Set<String> = [
        "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_IMAGE_TYPE_AMI", "COMPUTE_IMAGE_TYPE_AKI", "COMPUTE_IMAGE_TYPE_ARI",
        "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_VMDK", "COMPUTE_IMAGE_TYPE_VHD", "COMPUTE_IMAGE_TYPE_VHDX", "COMPUTE_IMAGE_TYPE_VDI",
        "COMPUTE_STORAGE_BUS_VIRTIO", "COMPUTE_STORAGE_BUS_SCSI", "COMPUTE_STORAGE_BUS_SATA", "COMPUTE_STORAGE_BUS_IDE",
        "COMPUTE_NET_VIF_MODEL_VIRTIO", "COMPUTE_GRAPHICS_MODEL_NONE",
    ]

    /// os_traits' names by the kernel's; the monitor hands a guest what KVM supports of the host's processor.
    private static let processorTraits: [String: String] = [
        "mmx": "MMX", "sse": "SSE", "sse2": "SSE2", "pni": "SSE3", "ssse3": "SSSE3", "sse4_1": "SSE41",
        "sse4_2": "SSE42",
        "sse4a": "SSE4A", "avx": "AVX", "avx2": "AVX2", "aes": "AESNI", "pclmulqdq": "CLMUL", "f16c": "F16C",
        "fma": "FMA3",
        "abm": "ABM", "bmi1": "BMI", "bmi2": "BMI2", "sha_ni": "SHA", "avx512f": "AVX512F", "avx512cd": "AVX512CD",
        "avx512dq": "AVX512DQ", "avx512bw": "AVX512BW", "avx512vl": "AVX512VL", "avx512_vnni": "AVX512VNNI",
    ]

    static func of(_ processors: ProcessorInfo) -> Set<String> {
        var traits = always
        for feature in processors.features {
            if let name = processorTraits[feature] { traits.insert("HW_CPU_X86_" + name) }
        }
        if processors.threadsPerCore > 1 { traits.insert("HW_CPU_HYPERTHREADING") }
        return traits
    }
}
