// allocate_for_instance (RPC reference §5.1.1): ports are made with the user's token, so that the user's quota and policy
// count; they are bound to this host with the service's, which a user may not do. What fails half way is undone: ports this
// operation made are deleted, ports that were there before are given back.
import JSON
import Logging
import Neutron
package import NovaObjects
import OpenStackHTTP
package import OsloMessaging

extension NeutronNetwork {
    package func allocate(
        for instance: Instance, requested: NetworkRequestList?, securityGroups: [String], context: RequestContext
    ) async throws -> NetworkInfo {
        let requests = try requested?.elements() ?? []
        if requests.count == 1, requests[0].isNone { return [] }
        var delay = options.retryDelay
        var retriesLeft = options.allocateRetries
        while true {
            do {
                return try await alone(instance, context) {
                    try await allocateOnce(instance, requests, securityGroups, context: context)
                }
            } catch where retriesLeft > 0 && !Task.isCancelled {
                retriesLeft -= 1
                logger.warning(
                    "allocating the network failed; trying again",
                    metadata: ["instance": "\(instance.uuid)", "attempts_left": "\(retriesLeft + 1)", "reason": "\(error)"])
            }
            try await Task.sleep(for: delay)
            delay = min(delay * 2, .seconds(30))
        }
    }

    private func allocateOnce(
        _ instance: Instance, _ requests: [NetworkRequest], _ securityGroups: [String], context: RequestContext
    ) async throws -> NetworkInfo {
        guard let projectID = instance.projectID, !projectID.isEmpty else {
            throw NovaException(
                "InvalidInput", "Invalid input received: empty project id for instance \(instance.uuid)", code: 400)
        }
        let user = try Self.authorization(of: context)
        let check = InterfaceRequestCheck(
            neutron: neutron, instance: instance, projectID: projectID, user: user, isAdmin: context.isAdmin)
        let plan = try await check.plan(requests, securityGroups: securityGroups)
        guard !plan.networks.isEmpty else {
            logger.debug("no network is available and none was requested", metadata: ["instance": "\(instance.uuid)"])
            return []
        }
        var work = Allocation()
        do {
            try await createPorts(&work, plan, check, user: user)
            try await bindPorts(&work, plan, instance, user: user, context: context)
        } catch {
            await undo(work, user: user, context: context)
            throw error
        }
        let ids = work.interfaces.map(\.portID)
        let info = try await describe(
            instance,
            .allocated(
                ports: ids, networks: work.interfaces.compactMap { plan.networks[$0.wanted.networkID] },
                preexisting: Set(work.bound.filter { !work.created.contains($0) })), context: context)
        // Interfaces the instance had before are in the cache, but not what was asked for.
        return info.filter { ids.contains($0.id) }
    }

    /// What has been done so far, for undoing it.
    private struct Allocation: Sendable {
        struct Interface: Sendable {
            let wanted: WantedInterface
            let portID: String
        }
        var interfaces: [Interface] = []
        var created: [String] = []
        /// Ports that carry the instance's id now.
        var bound: [String] = []
        var records: [VirtualInterface] = []
    }

    // MARK: Making ports

    private func createPorts(
        _ work: inout Allocation, _ plan: InterfacePlan, _ check: InterfaceRequestCheck, user: RequestAuthorization
    ) async throws {
        for wanted in plan.interfaces {
            guard let network = plan.networks[wanted.networkID] else { continue }
            let isSecured = network["port_security_enabled"]?.boolValue ?? true
            let hasSubnets = network["subnets"]?.arrayValue?.isEmpty == false
            guard isSecured ? hasSubnets : plan.securityGroupIDs.isEmpty else {
                throw NovaException(
                    "SecurityGroupCannotBeApplied",
                    "Network requires port_security_enabled and subnet associated in order to apply security groups.",
                    code: 400)
            }
            guard wanted.portID == nil else {
                work.interfaces.append(.init(wanted: wanted, portID: wanted.portID ?? ""))
                continue
            }
            let port = try await createPort(wanted, plan, check, user: user)
            guard let id = port["id"]?.stringValue else {
                throw NovaException(
                    "NovaException", "Failed to create a port on network \(wanted.networkID)",
                    details: "create port on network \(wanted.networkID): the answer has no id (peer)")
            }
            work.created.append(id)
            if try await check.hasResourceRequest(port) {
                throw NovaException(
                    "NetworksWithQoSPolicyNotSupported",
                    "Using networks with QoS policy is not supported for instance \(check.instance.uuid). "
                        + "(Network ID is \(wanted.networkID))", code: 400)
            }
            try InterfaceRequestCheck.requireBound(port)
            work.interfaces.append(.init(wanted: wanted, portID: id))
        }
    }

    private func createPort(
        _ wanted: WantedInterface, _ plan: InterfacePlan, _ check: InterfaceRequestCheck, user: RequestAuthorization
    ) async throws -> JSONValue {
        // The device id from the start: nobody else takes the port, and a deallocation finds it.
        var body: [String: JSONValue] = [
            "device_id": .string(check.instance.uuid), "network_id": .string(wanted.networkID), "admin_state_up": true,
            "tenant_id": .string(check.projectID),
        ]
        if let address = wanted.address, !address.isEmpty { body["fixed_ips"] = [["ip_address": .string(address)]] }
        if !plan.securityGroupIDs.isEmpty { body["security_groups"] = .array(plan.securityGroupIDs.map { .string($0) }) }
        do {
            return try await neutron.createPort(.object(body), as: user)
        } catch let fault as ServiceFault {
            let address = wanted.address ?? "None"
            switch fault.code {
            case "InvalidIpForNetwork":
                throw NovaException(
                    "InvalidInput",
                    "Invalid input received: Fixed IP \(address) is not a valid ip address for network \(wanted.networkID).",
                    code: 400, cause: fault)
            case "IpAddressInUse", "IpAddressAlreadyAllocated":
                throw NovaException("FixedIpAlreadyInUse", "Fixed IP \(address) is already in use.", cause: fault)
            case "OverQuota":
                throw NovaException("PortLimitExceeded", "Maximum number of ports exceeded", code: 413, cause: fault)
            case "IpAddressGenerationFailure":
                throw NovaException(
                    "NoMoreFixedIps", "No fixed IP addresses available for network: \(wanted.networkID)", cause: fault)
            default:
                throw fault
            }
        }
    }

    // MARK: Binding them

    private func bindPorts(
        _ work: inout Allocation, _ plan: InterfacePlan, _ instance: Instance, user: RequestAuthorization,
        context: RequestContext
    ) async throws {
        for interface in work.interfaces {
            let id = interface.portID
            let network = plan.networks[interface.wanted.networkID] ?? .null
            let hasDomain = network["dns_domain"]?.stringValue.map { !$0.isEmpty } ?? false
            let hasNames = try await neutron.extensions(as: user).contains("dns-integration")
            var body: [String: JSONValue] = [
                "device_id": .string(instance.uuid),
                "device_owner": .string("compute:\(instance.availabilityZone ?? "None")"),
                "binding:host_id": .string(options.host),
            ]
            if let profile = plan.ports[id]?["binding:profile"]?.objectValue, !profile.isEmpty {
                body["binding:profile"] = .object(profile)
            }
            if hasNames, !hasDomain { body["dns_name"] = .nullable(instance.hostname) }
            let port = try await updatePort(id, body)
            work.bound.append(id)
            try InterfaceRequestCheck.requireBound(port)

            var record = VirtualInterface(
                address: "\(port["mac_address"]?.stringValue ?? "")/\(id)", instanceUUID: instance.uuid, portID: id,
                tag: interface.wanted.tag, profile: conductor.profile)
            // A column of nova-network's time, which nova-compute leaves alone.
            record.object.unset("network_id")
            try await conductor.call(&record, "create", context: context)
            work.records.append(record)
            if hasNames, hasDomain { try await name(id, instance, user: user) }
        }
    }

    private func updatePort(_ id: String, _ body: [String: JSONValue]) async throws -> JSONValue {
        do {
            return try await neutron.updatePort(id, .object(body), as: .service)
        } catch let fault as ServiceFault {
            switch fault.code {
            case "MacAddressInUse":
                throw NovaException("PortInUse", "Port \(id) is still in use.", code: 400, cause: fault)
            case "HostNotCompatibleWithFixedIps":
                throw NovaException(
                    "FixedIpInvalidOnHost", "The fixed IP associated with port \(id) is not compatible with the host.",
                    code: 400, cause: fault)
            default:
                throw fault
            }
        }
    }

    /// In a zone of an external DNS, which belongs to the user: with the user's token.
    private func name(_ id: String, _ instance: Instance, user: RequestAuthorization) async throws {
        do {
            _ = try await neutron.updatePort(id, ["dns_name": .nullable(instance.hostname)], as: user)
        } catch let fault as ServiceFault where fault.status == 400 {
            throw NovaException(
                "InvalidInput",
                "Invalid input received: Instance hostname \(instance.hostname ?? "None") is not a valid DNS name", code: 400,
                cause: fault)
        }
    }

    // MARK: Undoing

    private func undo(_ work: Allocation, user: RequestAuthorization, context: RequestContext) async {
        // In a task of its own: a cancelled build must not leave ports behind. Each request in it has its own deadline.
        await Task {
            await unbind(work.bound.filter { !work.created.contains($0) }, user: user)
            _ = await delete(work.created, user: user)
            for var record in work.records {
                do {
                    try await conductor.call(&record, "destroy", context: context)
                } catch {
                    logger.warning(
                        "virtual interface could not be removed",
                        metadata: ["port": "\(record.uuid ?? "")", "reason": "\(error)"])
                }
            }
        }.value
    }
}
