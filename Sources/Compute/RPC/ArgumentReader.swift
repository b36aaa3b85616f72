// The arguments of one message, read by name. A value of another shape than the method's is refused before anything is begun.
package import JSON
package import NovaObjects

/// The keyword arguments of a request, checked against its method.
package struct ArgumentReader: Sendable {
    package let values: [String: JSONValue]

    /// Throws for the first argument that is missing or of the wrong type. Further arguments are none of our business: a newer
    /// control plane may send them.
    package init(_ values: [String: JSONValue], of method: RPCMethod) throws {
        self.values = values
        for argument in method.arguments {
            if let problem = argument.problem(with: values[argument.name]) { throw problem }
        }
    }

    package func object<Object: NovaObject>(_ name: String, as type: Object.Type = Object.self) throws -> Object {
        guard let value = values[name], !value.isNull else { throw NovaException.invalidArgument(name, "it is missing") }
        return try Object(primitive: value)
    }

    package func optionalObject<Object: NovaObject>(_ name: String, as type: Object.Type = Object.self) throws -> Object? {
        guard let value = values[name], !value.isNull else { return nil }
        return try Object(primitive: value)
    }

    package func objects<Object: NovaObject>(_ name: String, as type: Object.Type = Object.self) throws -> [Object] {
        try (values[name]?.arrayValue ?? []).map { try Object(primitive: $0) }
    }

    package func list<List: NovaListObject>(_ name: String, as type: List.Type = List.self) throws -> [List.Element] {
        try optionalObject(name, as: List.self)?.elements() ?? []
    }

    package func text(_ name: String) -> String? { values[name]?.stringValue }
    package func flag(_ name: String, or absent: Bool) -> Bool { values[name]?.boolValue ?? absent }
    package func texts(_ name: String) -> [String] { values[name]?.arrayValue?.compactMap(\.stringValue) ?? [] }

    /// A number, which older clients send as text.
    package func number(_ name: String) throws -> Int? {
        guard let value = values[name], !value.isNull else { return nil }
        guard let number = value.intValue ?? value.stringValue.flatMap({ Int($0) }) else {
            throw NovaException.invalidArgument(name, "it is no whole number")
        }
        return number
    }
}

/// The arguments of build_and_run_instance.
package struct BuildRequest: Sendable {
    package var instance: Instance
    /// Nova's own form of an image (contract §8.1); empty for boot from volume.
    package var image: JSONValue
    package var filterProperties: [String: JSONValue]
    package var acceleratorUUIDs: [String]
    package var adminPassword: String?
    /// Path and content in base64.
    package var injectedFiles: [JSONValue]
    package var requestedNetworks: NetworkRequestList?
    package var securityGroups: [String]
    package var blockDeviceMappings: [BlockDeviceMapping]
    package var limits: JSONValue
    /// As received: a reschedule sends it on.
    package var received: [String: JSONValue]

    package init(_ arguments: ArgumentReader) throws {
        instance = try arguments.object("instance")
        image = arguments.values["image"] ?? .object([:])
        filterProperties = arguments.values["filter_properties"]?.objectValue ?? [:]
        acceleratorUUIDs = arguments.texts("accel_uuids")
        adminPassword = arguments.text("admin_password")
        injectedFiles = arguments.values["injected_files"]?.arrayValue ?? []
        requestedNetworks = try arguments.optionalObject("requested_networks")
        securityGroups = arguments.texts("security_groups")
        blockDeviceMappings = try arguments.list("block_device_mapping", as: BlockDeviceMappingList.self)
        limits = arguments.values["limits"].flatMap { $0.isNull ? nil : $0 } ?? .object([:])
        received = arguments.values
    }
}
