// Questions about a guest that need no lock: console output (RPC reference §5.14) and diagnostics (§5.15).
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging

extension ComputeManager {
    /// As much of the console as is read at most: the API answers it in one message.
    static let consoleByteCount = 100 * 1024

    func consoleOutput(_ instance: Instance, tailLength: Int?) async throws -> JSONValue {
        if tailLength == 0 { return "" }
        let bytes = try await services.driver.consoleOutput(
            instanceUUID: instance.uuid, byteCount: Self.consoleByteCount)
        return .string(Self.tail(Self.ascii(bytes), lines: tailLength))
    }

    /// ASCII; every other byte becomes U+FFFD.
    static func ascii(_ bytes: [UInt8]) -> String {
        var scalars = String.UnicodeScalarView()
        for byte in bytes { scalars.append(byte < 0x80 ? Unicode.Scalar(byte) : "\u{FFFD}") }
        return String(scalars)
    }

    /// The last elements of the text split at newlines, as Python counts them.
    static func tail(_ text: String, lines: Int?) -> String {
        guard let lines, lines > 0 else { return lines == 0 ? "" : text }
        // Scalars, not characters: "\r\n" is one character.
        let parts = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false)
        var tail = String.UnicodeScalarView()
        for (index, part) in parts.suffix(lines).enumerated() {
            if index > 0 { tail.append("\n") }
            tail.append(contentsOf: part)
        }
        return String(tail)
    }

    private func runningStatistics(_ instance: Instance, method: String) async throws -> MachineStatistics {
        let state = try await powerState(of: instance)
        guard state == .running else {
            throw NovaException.instanceInvalidState(
                instance.uuid, attribute: "power_state", state: String(state.rawValue), method: method)
        }
        return try await services.driver.statistics(of: instance.uuid)
    }

    /// The free form of old microversions, with libvirt's keys.
    func diagnostics(_ instance: Instance) async throws -> JSONValue {
        let statistics = try await runningStatistics(instance, method: "get_diagnostics")
        var answer: [String: JSONValue] = [:]
        for (index, time) in statistics.vcpuTimes.enumerated() { answer["cpu\(index)_time"] = .counter(time) }
        for disk in statistics.disks {
            answer["\(disk.name)_read_req"] = .integer(disk.readRequests)
            answer["\(disk.name)_read"] = .integer(disk.readBytes)
            answer["\(disk.name)_write_req"] = .integer(disk.writeRequests)
            answer["\(disk.name)_write"] = .integer(disk.writeBytes)
            answer["\(disk.name)_errors"] = .integer(disk.errors)
        }
        answer["memory"] = .integer(Int64(statistics.memoryMiB) &* 1024)
        answer["memory-rss"] = .integer(Int64(statistics.residentKiB))
        for (name, value) in statistics.balloon { answer["memory-\(name)"] = .counter(value) }
        for interface in statistics.interfaces {
            answer["\(interface.name)_rx"] = .integer(interface.receivedBytes)
            answer["\(interface.name)_rx_packets"] = .integer(interface.receivedPackets)
            answer["\(interface.name)_rx_drop"] = .integer(interface.receiveDrops)
            answer["\(interface.name)_rx_errors"] = .integer(interface.receiveErrors)
            answer["\(interface.name)_tx"] = .integer(interface.sentBytes)
            answer["\(interface.name)_tx_packets"] = .integer(interface.sentPackets)
            answer["\(interface.name)_tx_drop"] = .integer(interface.sendDrops)
            answer["\(interface.name)_tx_errors"] = .integer(interface.sendErrors)
        }
        return .object(answer)
    }

    func instanceDiagnostics(_ instance: Instance) async throws -> JSONValue {
        let statistics = try await runningStatistics(instance, method: "get_diagnostics")
        let interfaces = statistics.interfaces.map { counted in
            var interface = Diagnostics.Interface()
            interface.macAddress = counted.macAddress
            interface.receivedOctets = Int(counted.receivedBytes)
            interface.receivedPackets = Int(counted.receivedPackets)
            interface.receiveErrors = Int(counted.receiveErrors)
            interface.receiveDrops = Int(counted.receiveDrops)
            interface.sentOctets = Int(counted.sentBytes)
            interface.sentPackets = Int(counted.sentPackets)
            interface.sendErrors = Int(counted.sendErrors)
            interface.sendDrops = Int(counted.sendDrops)
            return interface
        }
        let disks = statistics.disks.map { counted in
            var disk = Diagnostics.Disk()
            disk.readBytes = Int(counted.readBytes)
            disk.readRequests = Int(counted.readRequests)
            disk.writeBytes = Int(counted.writeBytes)
            disk.writeRequests = Int(counted.writeRequests)
            disk.errors = Int(counted.errors)
            return disk
        }
        return Diagnostics(
            state: "running", uptimeSeconds: statistics.uptimeSeconds,
            hasConfigDrive: instance.hasConfigDrive,
            vcpuTimes: statistics.vcpuTimes.map { Int(clamping: $0) }, interfaces: interfaces, disks: disks,
            memoryMiB: statistics.memoryMiB, usedMemoryMiB: statistics.residentKiB / 1024, profile: profile
        ).primitive
    }
}

extension Instance {
    /// `config_drive` is text: "True", or empty.
    var hasConfigDrive: Bool {
        guard let text = configDrive?.lowercased() else { return false }
        return !["", "false", "0", "none"].contains(text)
    }
}

extension JSONValue {
    /// A counter, which a message cannot carry beyond 63 bits.
    static func counter(_ value: UInt64) -> JSONValue { .integer(Int64(clamping: value)) }
}
