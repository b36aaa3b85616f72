// A guest's processor out of the host's: bits taken away or asked for, a named processor's identity, and what hangs on bits that are
// gone (the components of XSAVE).
package import MachineCore

extension CPUIDTable {
    subscript(_ register: CPUIDRegister) -> UInt32? {
        get {
            guard let leaf = leaves.first(where: { $0.function == register.function && $0.index == register.index }) else { return nil }
            switch register.name {
            case .eax: return leaf.eax
            case .ebx: return leaf.ebx
            case .ecx: return leaf.ecx
            case .edx: return leaf.edx
            }
        }
        set {
            guard let value = newValue,
                let place = leaves.firstIndex(where: { $0.function == register.function && $0.index == register.index })
            else { return }
            switch register.name {
            case .eax: leaves[place].eax = value
            case .ebx: leaves[place].ebx = value
            case .ecx: leaves[place].ecx = value
            case .edx: leaves[place].edx = value
            }
        }
    }

    package func has(_ feature: ProcessorFeature) -> Bool { (self[feature.register] ?? 0) & feature.mask != 0 }

    private mutating func set(_ feature: ProcessorFeature, _ isOn: Bool) {
        guard let old = self[feature.register] else { return }
        self[feature.register] = isOn ? old | feature.mask : old & ~feature.mask
    }

    /// What a guest with `model` sees, where this table is what the accelerator can show of the host.
    /// - Throws: the caller's fault: an unknown name; the host's: a feature that is wanted and missing.
    package func showing(_ model: ProcessorModel) throws(AcceleratorError) -> CPUIDTable {
        var table = self
        if case .named(let name) = model.base {
            guard let processor = NamedProcessor.named(name) else {
                throw AcceleratorError(
                    "find processor model", subject: name, fault: .caller,
                    reason: "there are: host-passthrough, host-model, \(NamedProcessor.all.map(\.name).joined(separator: ", "))")
            }
            try table.become(processor, without: model.features)
        }
        for (name, isOn) in model.features.sorted(by: { $0.key < $1.key }) {
            guard let feature = ProcessorFeature.named(name) else {
                throw AcceleratorError("find processor feature", subject: name, fault: .caller, reason: "no feature has this name")
            }
            if isOn, !has(feature) { throw Self.missing([name]) }
            table.set(feature, isOn)
        }
        table.dropComponentsWithoutFeatures()
        if model.hidesAccelerator { table.leaves.removeAll { 0x4000_0000..<0x5000_0000 ~= $0.function } }
        if !model.enlightenments.isEmpty { try table.add(model.enlightenments) }
        return table
    }

    private static func missing(_ names: [String]) -> AcceleratorError {
        AcceleratorError(
            "show the guest a processor", subject: names.joined(separator: ", "), fault: .host,
            reason: "this host's processor, or its KVM, has not got what is named: choose another model, or take the features away")
    }

    /// Keeps of the host what `processor` has.
    private mutating func become(_ processor: NamedProcessor, without features: [String: Bool]) throws(AcceleratorError) {
        var kept: [CPUIDRegister: UInt32] = [:]
        var lacking: [String] = []
        for name in processor.features.sorted() where features[name] != false {
            guard let feature = ProcessorFeature.named(name) else { continue }
            // What the accelerator gives every guest, whatever the host's table says.
            if !has(feature), !Self.givenAnyway.union(NamedProcessor.optional).contains(name) { lacking.append(name) }
            kept[feature.register, default: 0] |= feature.mask
        }
        guard lacking.isEmpty else { throw Self.missing(lacking) }
        for name in Self.givenAnyway.union(["hypervisor", "ht"]) {
            if let feature = ProcessorFeature.named(name) { kept[feature.register, default: 0] |= feature.mask }
        }
        // Features asked for beside the model's are set later, where the host has them.
        for register in ProcessorFeature.registers {
            guard let value = self[register] else { continue }
            var mask = kept[register] ?? 0
            // AMD repeats leaf 1 here.
            if register == CPUIDRegister(0x8000_0001, 0, .edx) { mask |= (kept[CPUIDRegister(1, 0, .edx)] ?? 0) & ProcessorFeature.repeatedOnAMD }
            self[register] = value & mask
        }
        let signature = CPUIDRegister(1, 0, .eax), level = CPUIDRegister(0, 0, .eax)
        self[signature] = processor.signature
        self[level] = min(self[level] ?? 0, processor.level)
        leaves.removeAll { $0.function < 0x4000_0000 && $0.function > processor.level }
        setBrand(processor.brand)
    }

    /// KVM emulates these on every host.
    private static let givenAnyway: Set<String> = ["x2apic", "tsc-deadline", "arat", "tsc_adjust"]

    private mutating func setBrand(_ brand: String) {
        var bytes = Array(brand.utf8.prefix(47))
        bytes += [UInt8](repeating: 0, count: 48 - bytes.count)
        func word(_ offset: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
        }
        for number in 0..<3 {
            let function = 0x8000_0002 + UInt32(number), offset = 16 * number
            self[CPUIDRegister(function, 0, .eax)] = word(offset)
            self[CPUIDRegister(function, 0, .ebx)] = word(offset + 4)
            self[CPUIDRegister(function, 0, .ecx)] = word(offset + 8)
            self[CPUIDRegister(function, 0, .edx)] = word(offset + 12)
        }
    }

    /// XCR0's components by the features that use them (SDM volume 1 §13.1).
    private static let components: [(bits: UInt32, features: [String])] = [
        (1 << 2, ["avx"]), (0b11 << 3, ["mpx"]), (0b111 << 5, ["avx512f"]), (1 << 9, ["pku"]), (0b11 << 17, ["amx-tile"]),
    ]

    private mutating func dropComponentsWithoutFeatures() {
        guard let components = self[CPUIDRegister(0xD, 0, .eax)] else { return }
        guard let xsave = ProcessorFeature.named("xsave"), has(xsave) else {
            leaves.removeAll { $0.function == 0xD }
            return
        }
        var left = components
        for (bits, names) in Self.components where !names.contains(where: { ProcessorFeature.named($0).map(has) ?? false }) { left &= ~bits }
        self[CPUIDRegister(0xD, 0, .eax)] = left
        // The area's length: legacy and header, then up to the end of the last component.
        let ends = leaves.filter { $0.function == 0xD && (2..<32).contains($0.index) && left & 1 << $0.index != 0 }.map { $0.eax &+ $0.ebx }
        self[CPUIDRegister(0xD, 0, .ecx)] = max(576, ends.max() ?? 0)
        leaves.removeAll { $0.function == 0xD && (2..<32).contains($0.index) && components & 1 << $0.index != 0 && left & 1 << $0.index == 0 }
    }
}
