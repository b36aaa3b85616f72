import MachineCore
import Testing

@testable import KVM

/// A host's table in which every named bit is set.
private func host(without names: Set<String> = []) -> CPUIDTable {
    var leaves: [CPUIDLeaf] = [
        CPUIDLeaf(function: 0, eax: 0x20), CPUIDLeaf(function: 1, eax: 0x000A_06F3), CPUIDLeaf(function: 6), CPUIDLeaf(function: 7),
        CPUIDLeaf(function: 7, index: 1), CPUIDLeaf(function: 0xD, eax: 0x602E7), CPUIDLeaf(function: 0xD, index: 1),
        CPUIDLeaf(function: 0xD, index: 2, eax: 256, ebx: 576), CPUIDLeaf(function: 0xD, index: 5, eax: 64, ebx: 1088),
        CPUIDLeaf(function: 0xD, index: 6, eax: 512, ebx: 1152), CPUIDLeaf(function: 0xD, index: 7, eax: 1024, ebx: 1664),
        CPUIDLeaf(function: 0xD, index: 9, eax: 8, ebx: 2688), CPUIDLeaf(function: 0xD, index: 17, eax: 64, ebx: 2752),
        CPUIDLeaf(function: 0xD, index: 18, eax: 8192, ebx: 2816), CPUIDLeaf(function: 0x14), CPUIDLeaf(function: 0x20),
        CPUIDLeaf(function: 0x4000_0000, eax: 0x4000_0001, ebx: 0x4B4D_564B), CPUIDLeaf(function: 0x4000_0001, eax: 0x0100_7AFB),
        CPUIDLeaf(function: 0x8000_0000, eax: 0x8000_0020), CPUIDLeaf(function: 0x8000_0001), CPUIDLeaf(function: 0x8000_0002),
        CPUIDLeaf(function: 0x8000_0003), CPUIDLeaf(function: 0x8000_0004), CPUIDLeaf(function: 0x8000_0007),
        CPUIDLeaf(function: 0x8000_0008), CPUIDLeaf(function: 0x8000_000A),
    ]
    leaves[5].ecx = 11008
    var table = CPUIDTable(leaves: leaves)
    for name in ProcessorFeature.names where !names.contains(name) {
        guard let feature = ProcessorFeature.named(name) else { continue }
        table[feature.register] = (table[feature.register] ?? 0) | feature.mask
    }
    return table
}

private func has(_ name: String, _ table: CPUIDTable) -> Bool { ProcessorFeature.named(name).map(table.has) ?? false }

@Suite struct ProcessorModelTests {
    @Test func everyModelIsMadeOfKnownFeaturesAndHasExactlyThose() throws {
        for processor in NamedProcessor.all {
            for name in processor.features { #expect(ProcessorFeature.named(name) != nil, "\(processor.name): \(name)") }
            let table = try host().showing(ProcessorModel(base: .named(processor.name)))
            let shown = Set(ProcessorFeature.names.filter { has($0, table) })
            // Leaf 7 is beyond the level of the oldest: its bits are gone with it.
            let given: Set<String> = ["x2apic", "tsc-deadline", "arat", "tsc_adjust", "hypervisor", "ht"]
            #expect(shown.subtracting(processor.features).isSubset(of: given), "\(processor.name): \(shown.subtracting(processor.features))")
            let lost = processor.features.subtracting(shown).filter { (ProcessorFeature.named($0)?.register.function ?? 0) <= processor.level }
            #expect(lost.isEmpty, "\(processor.name) lacks \(lost)")
            #expect(processor.brand.utf8.count <= 47)
        }
        #expect(Set(NamedProcessor.all.map(\.name)).count == NamedProcessor.all.count)
    }

    @Test func identityIsTheModels() throws {
        let table = try host().showing(ProcessorModel(base: .named("Skylake-Server-noTSX-IBRS")))
        #expect(table[CPUIDRegister(1, 0, .eax)] == 0x0005_0654 && table[CPUIDRegister(0, 0, .eax)] == 0xD)
        #expect(try host().showing(ProcessorModel(base: .named("EPYC-Milan")))[CPUIDRegister(1, 0, .eax)] == 0x00A0_0F11)
        // "Inte" begins the brand.
        #expect(table[CPUIDRegister(0x8000_0002, 0, .eax)] == 0x6574_6E49)
        #expect(!table.leaves.contains { $0.function == 0x14 || $0.function == 0x20 })
    }

    @Test func whatTheHostLacksIsRefusedAndNamed() throws {
        let error = #expect(throws: AcceleratorError.self) {
            try host(without: ["avx2", "bmi2"]).showing(ProcessorModel(base: .named("Haswell-noTSX")))
        }
        #expect(error?.fault == .host && error?.subject == "avx2, bmi2")
        // Without them asked for, it can be had.
        var model = ProcessorModel(base: .named("Haswell-noTSX"), features: ["avx2": false, "bmi2": false])
        #expect(try !has("avx2", host(without: ["avx2", "bmi2"]).showing(model)))
        model = ProcessorModel(features: ["pcid": true])
        #expect(#expect(throws: AcceleratorError.self) { try host(without: ["pcid"]).showing(model) }?.subject == "pcid")
    }

    @Test func unknownNamesAreTheCallersFault() {
        for model in [ProcessorModel(base: .named("Pentium-9")), ProcessorModel(features: ["warp": true])] {
            #expect(#expect(throws: AcceleratorError.self) { try host().showing(model) }?.fault == .caller)
        }
    }

    @Test func aFeatureTakenAwayTakesItsRegistersAlong() throws {
        let whole = try host().showing(ProcessorModel())
        #expect(whole[CPUIDRegister(0xD, 0, .eax)] == 0x602E7 && whole[CPUIDRegister(0xD, 0, .ecx)] == 11008)
        let table = try host().showing(ProcessorModel(features: ["avx512f": false, "amx-tile": false, "pku": false]))
        #expect(table[CPUIDRegister(0xD, 0, .eax)] == 0x7)
        #expect(table[CPUIDRegister(0xD, 0, .ecx)] == 832)
        #expect(!table.leaves.contains { $0.function == 0xD && $0.index > 2 })
        #expect(try !host().showing(ProcessorModel(features: ["xsave": false])).leaves.contains { $0.function == 0xD })
    }

    @Test func hyperVComesFirstAndKVMFollows() throws {
        let table = try host().showing(ProcessorModel(enlightenments: Set(Enlightenment.allCases)))
        #expect(table[CPUIDRegister(0x4000_0000, 0, .ebx)] == 0x7263_694D)
        #expect(table[CPUIDRegister(0x4000_0100, 0, .ebx)] == 0x4B4D_564B && table[CPUIDRegister(0x4000_0100, 0, .eax)] == 0x4000_0101)
        #expect(table[CPUIDRegister(0x4000_0101, 0, .eax)] == 0x0100_7AFB)
        // Every privilege that Windows asks for, and the bound on spinlocks that Nova sets.
        #expect(table[CPUIDRegister(0x4000_0003, 0, .eax)] == 0xAFF && table[CPUIDRegister(0x4000_0003, 0, .edx)] == 0x100)
        #expect(table[CPUIDRegister(0x4000_0004, 0, .eax)] == 0xC2C && table[CPUIDRegister(0x4000_0004, 0, .ebx)] == 0x1FFF)
        let hidden = try host().showing(ProcessorModel(hidesAccelerator: true, enlightenments: [.relaxed]))
        #expect(!hidden.leaves.contains { $0.function >= 0x4000_0100 && $0.function < 0x5000_0000 })
        #expect(hidden[CPUIDRegister(0x4000_0000, 0, .ebx)] == 0x7263_694D)
        let plain = try host().showing(ProcessorModel(hidesAccelerator: true))
        #expect(!plain.leaves.contains { 0x4000_0000..<0x5000_0000 ~= $0.function })
    }

    @Test func anEnlightenmentWithoutWhatItNeedsIsRefused() {
        let error = #expect(throws: AcceleratorError.self) { try host().showing(ProcessorModel(enlightenments: [.stimer, .time])) }
        #expect(error?.reason.contains("synic, vpindex") == true)
    }
}
