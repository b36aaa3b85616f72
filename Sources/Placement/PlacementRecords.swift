// Placement's JSON records as values and back.
import JSON
import OpenStackHTTP

extension PlacementClient {
    static func provider(_ json: JSONValue, _ answer: ServiceAnswer) throws(ServiceFault) -> ResourceProvider {
        guard let uuid = json["uuid"]?.stringValue, let name = json["name"]?.stringValue,
            let generation = json["generation"]?.intValue
        else { throw answer.malformed("a resource provider without uuid, name or generation") }
        return ResourceProvider(
            uuid: uuid, name: name, generation: generation, parentUUID: json["parent_provider_uuid"]?.stringValue)
    }

    static func inventory(_ json: JSONValue, _ answer: ServiceAnswer) throws(ServiceFault) -> Inventory {
        guard let total = json["total"]?.intValue else { throw answer.malformed("an inventory without total") }
        return Inventory(
            total: total, reserved: json["reserved"]?.intValue ?? 0, minUnit: json["min_unit"]?.intValue ?? 1,
            maxUnit: json["max_unit"]?.intValue ?? total, stepSize: json["step_size"]?.intValue ?? 1,
            allocationRatio: json["allocation_ratio"]?.doubleValue ?? 1)
    }

    static func record(_ inventory: Inventory) -> JSONValue {
        [
            "total": .integer(Int64(inventory.total)), "reserved": .integer(Int64(inventory.reserved)),
            "min_unit": .integer(Int64(inventory.minUnit)), "max_unit": .integer(Int64(inventory.maxUnit)),
            "step_size": .integer(Int64(inventory.stepSize)), "allocation_ratio": .double(inventory.allocationRatio),
        ]
    }

    static func record(_ allocations: Allocations) -> JSONValue {
        var record: [String: JSONValue] = [
            "allocations": .object(
                allocations.byProvider.mapValues { resources in
                    ["resources": .object(resources.mapValues { .integer(Int64($0)) })]
                }),
            // A consumer that Placement does not know yet has the generation null.
            "consumer_generation": allocations.consumerGeneration.map { .integer(Int64($0)) } ?? .null,
        ]
        if let project = allocations.projectID { record["project_id"] = .string(project) }
        if let user = allocations.userID { record["user_id"] = .string(user) }
        return .object(record)
    }

    static func resources(_ json: JSONValue, _ answer: ServiceAnswer) throws(ServiceFault) -> [String: Int] {
        guard let resources = json["resources"]?.objectValue else {
            throw answer.malformed("an allocation without resources")
        }
        return resources.compactMapValues(\.intValue)
    }

    static func strings(_ key: String, _ answer: ServiceAnswer) throws(ServiceFault) -> Set<String> {
        guard let list = try answer.json()[key]?.arrayValue else { throw answer.malformed("no \(key)") }
        return Set(list.compactMap(\.stringValue))
    }

    static func generation(_ json: JSONValue, _ answer: ServiceAnswer) throws(ServiceFault) -> Int {
        guard let generation = json["resource_provider_generation"]?.intValue else {
            throw answer.malformed("no resource_provider_generation")
        }
        return generation
    }
}
