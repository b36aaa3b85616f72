// What this host is made of, from /proc, /sys and statvfs (contract §12). The readers of text are pure.
import ComputeDriver
import Glibc
import JSON

/// /proc/cpuinfo, as far as a control plane wants to know it.
struct ProcessorInfo: Sendable, Equatable {
    var vendor = ""
    var model = ""
    /// Of the first processor, in the kernel's order and spelling.
    var features: [String] = []
    var threadCount = 0
    /// Distinct physical ids; distinct (physical, core) pairs.
    var socketCount = 1
    var coreCount = 1

    init(cpuinfo text: String) {
        var sockets: Set<String> = []
        var cores: Set<String> = []
        var socket = "0"
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let key = line[..<colon].trimmed, value = line[line.index(after: colon)...].trimmed
            switch key {
            case "processor":
                threadCount += 1
                socket = "0"
            case "vendor_id" where vendor.isEmpty:
                vendor = ["GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon"][value] ?? value
            case "model name" where model.isEmpty: model = value
            case "flags" where features.isEmpty: features = value.split(separator: " ").map(String.init)
            case "physical id":
                socket = value
                sockets.insert(value)
            case "core id": cores.insert("\(socket):\(value)")
            default: continue
            }
        }
        socketCount = max(1, sockets.count)
        coreCount = max(1, cores.isEmpty ? threadCount : cores.count)
    }

    var coresPerSocket: Int { max(1, coreCount / socketCount) }
    var threadsPerCore: Int { max(1, threadCount / coreCount) }

    /// cpu_info of the ComputeNode record.
    func json(numaNodeCount: Int) -> JSONValue {
        [
            "arch": "x86_64", "model": .string(model), "vendor": .string(vendor),
            "topology": [
                "cells": .integer(Int64(numaNodeCount)), "sockets": .integer(Int64(socketCount)),
                "cores": .integer(Int64(coresPerSocket)), "threads": .integer(Int64(threadsPerCore)),
            ],
            "features": .array(features.map { .string($0) }),
        ]
    }
}

extension Substring {
    fileprivate var trimmed: String {
        String(drop { $0 == " " || $0 == "\t" }.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}

enum HostFacts {
    /// "MemTotal:  16384 kB" → bytes.
    static func memoryMiB(meminfo text: String) -> Int? {
        for line in text.split(separator: "\n") where line.hasPrefix("MemTotal:") {
            return line.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 / 1024 }
        }
        return nil
    }

    /// How many CPUs "0-3,6" names.
    static func count(list text: String) -> Int {
        text.split { $0 == "," || $0 == "\n" }.reduce(0) { sum, part in
            let ends = part.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last, last >= first, last - first < 1 << 16 else {
                return sum
            }
            return sum + last - first + 1
        }
    }

    static func resources(of options: MachineDriverOptions) throws -> HostResources {
        let processors = ProcessorInfo(cpuinfo: try Files.text("/proc/cpuinfo") ?? "")
        guard let memory = try memoryMiB(meminfo: Files.text("/proc/meminfo") ?? "") else {
            throw HostFailure("read memory size from", "/proc/meminfo", errno: EPROTO)
        }
        var space = statvfs()
        guard unsafe statvfs(options.instancesPath, &space) == 0 else {
            throw HostFailure("examine file system of", options.instancesPath)
        }
        let gigabyte = UInt(1) << 30
        let online = count(list: try Files.text("/sys/devices/system/cpu/online") ?? "")
        return HostResources(
            vcpus: online > 0 ? online : max(1, processors.threadCount), memoryMiB: memory,
            diskGiB: Int(space.f_blocks &* space.f_frsize / gigabyte),
            diskFreeGiB: Int(space.f_bavail &* space.f_frsize / gigabyte), hypervisorType: "QEMU",
            hypervisorVersion: options.hypervisorVersion, cpuInfo: processors.json(numaNodeCount: max(1, try nodeCount())),
            supportedInstances: [["x86_64", "kvm", "hvm"]], hypervisorHostname: options.hostname ?? hostName())
    }

    /// NUMA nodes; 0 where the kernel knows none.
    static func nodeCount() throws -> Int { count(list: try Files.text("/sys/devices/system/node/online") ?? "") }

    static func hostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        // SAFETY: gethostname writes at most the count it is given; the buffer is ours and one longer.
        guard unsafe gethostname(&buffer, buffer.count - 1) == 0 else { return "localhost" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The line of `uptime` from /proc/uptime and /proc/loadavg; no sessions are counted on a host of this kind.
    static func uptimeLine(uptime: String, loadavg: String, now: (hour: Int, minute: Int, second: Int)) -> String {
        let seconds = uptime.split { $0 == " " || $0 == "." }.first.flatMap { Int($0) } ?? 0
        let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60)
        var up = days == 0 ? "" : days == 1 ? "1 day, " : "\(days) days, "
        up += hours == 0 ? "\(minutes) min" : "\(padded(hours, " ")):\(padded(minutes, "0"))"
        let load = loadavg.split(separator: " ").prefix(3).joined(separator: ", ")
        let clock = [now.hour, now.minute, now.second].map { padded($0, "0") }.joined(separator: ":")
        return " \(clock) up \(up),  0 users,  load average: \(load)"
    }

    private static func padded(_ value: Int, _ fill: String) -> String { value < 10 ? "\(fill)\(value)" : "\(value)" }

    static func uptimeLine() throws -> String {
        // SAFETY: both are locals; localtime_r fills the second, whose zone name is not looked at.
        var now = time(nil)
        var parts = unsafe tm()
        _ = unsafe localtime_r(&now, &parts)
        let clock = unsafe (Int(parts.tm_hour), Int(parts.tm_min), Int(parts.tm_sec))
        return uptimeLine(
            uptime: try Files.text("/proc/uptime") ?? "", loadavg: try Files.text("/proc/loadavg") ?? "", now: clock)
    }

    /// Changes with every start of the host.
    static func bootID() throws -> String {
        (try Files.text("/proc/sys/kernel/random/boot_id") ?? "").filter { $0 != "\n" }
    }
}
