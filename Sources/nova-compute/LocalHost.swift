// Facts of this host that are defaults of options: its name, and the address of the interface with the default route.
import Foundation
import NIOCore
import ServiceConfiguration

extension HostDefaults {
    static func local() -> HostDefaults { HostDefaults(hostName: hostName(), address: address() ?? "127.0.0.1") }

    private static func hostName() -> String {
        let name = (try? String(contentsOfFile: "/proc/sys/kernel/hostname", encoding: .utf8)) ?? ""
        return name.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private static func address() -> String? {
        guard let interface = defaultInterface(), let devices = try? System.enumerateDevices() else { return nil }
        let addresses = devices.filter { $0.name == interface }.compactMap { $0.address }
        return addresses.first { $0.protocol == .inet }?.ipAddress
    }

    /// The interface of destination 0.0.0.0 with the lowest metric (proc_pid_net(5), "route").
    private static func defaultInterface() -> String? {
        guard let table = try? String(contentsOfFile: "/proc/net/route", encoding: .utf8) else { return nil }
        let routes = table.split(separator: "\n").dropFirst().map { $0.split(whereSeparator: \.isWhitespace) }
        return routes.filter { $0.count > 7 && $0[1] == "00000000" && $0[7] == "00000000" }
            .min { (Int($0[6]) ?? 0) < (Int($1[6]) ?? 0) }
            .map { String($0[0]) }
    }
}
