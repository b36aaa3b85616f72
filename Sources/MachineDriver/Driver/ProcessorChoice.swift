// Which processor a guest gets: [libvirt] cpu_mode, cpu_models and cpu_model_extra_flags of the host, and what its image and flavor say.
import ComputeDriver
import JSON
import MachineConfiguration

/// The host's options.
package struct ProcessorOptions: Sendable, Equatable {
    /// nil: the host's own.
    package var model: String?
    package var features: [String: Bool]

    package init(model: String? = nil, features: [String: Bool] = [:]) {
        self.model = model
        self.features = features
    }

    /// - Parameter flags: "+pcid", "pcid", "-vmx".
    package init(mode: String?, models: [String], flags: [String]) {
        model = mode == "custom" ? models.first : mode.flatMap { $0 == "none" ? nil : $0 }
        features = [:]
        for flag in flags {
            let name = flag.trimmingPrefix("+")
            features[name.hasPrefix("-") ? String(name.dropFirst()) : String(name)] = !name.hasPrefix("-")
        }
    }
}

/// One guest's, as its directory keeps it.
struct ProcessorChoice: Sendable, Equatable {
    var model: String?
    var features: [String: Bool] = [:]
    var hidesKVM = false
    var isForWindows = false

    init() {}

    init(_ options: ProcessorOptions, image: ImageFields, specs: [String: String]) {
        model = options.model
        features = options.features
        let asked = (specs["hide_hypervisor_id"] ?? specs["hw:hide_hypervisor_id"])?.lowercased()
        hidesKVM = image.flag("img_hide_hypervisor_id") || ["true", "yes", "1"].contains(asked ?? "")
        isForWindows = image.text("os_type") == "windows"
    }

    func apply(to cpu: inout CPUConfiguration) {
        cpu.model = model
        cpu.features = features
        cpu.hidesKVM = hidesKVM
        cpu.enlightenments = isForWindows ? CPUConfiguration.windowsEnlightenments : []
    }

    var json: JSONValue {
        [
            "model": model.map { .string($0) } ?? .null, "features": .object(features.mapValues { .bool($0) }),
            "hidesKVM": .bool(hidesKVM), "isForWindows": .bool(isForWindows),
        ]
    }

    init(json: JSONValue?) {
        model = json?["model"]?.stringValue
        features = (json?["features"]?.objectValue ?? [:]).compactMapValues(\.boolValue)
        hidesKVM = json?["hidesKVM"]?.boolValue ?? false
        isForWindows = json?["isForWindows"]?.boolValue ?? false
    }
}
