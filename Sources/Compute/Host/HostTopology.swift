// The NUMA cells of the host as ComputeNode.numa_topology tells them (contract §12): from sysfs, without which a host
// has one cell with all that it has. No instance is pinned by this service.
import Foundation
import JSON
import NovaObjects
import ServiceConfiguration

struct HostTopology: Sendable, Equatable {
    struct Cell: Sendable, Equatable {
        var id: Int
        var cpus: Set<Int>
        var memoryMiB: Int
        /// Hyperthreads of one core each.
        var siblings: [Set<Int>]
        var socket: Int
        /// Size in KiB → number of pages.
        var pages: [Int: Int]
        /// Of these, pages that are not for servers.
        var reserved: [Int: Int] = [:]
    }
    var cells: [Cell]

    /// Reads /sys; `root` is another directory in tests.
    init(root: String = "/sys/devices/system", vcpus: Int, memoryMiB: Int) {
        let folder = root + "/node"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        let ids = names.filter { $0.hasPrefix("node") }.compactMap { Int($0.dropFirst(4)) }.sorted()
        let online = Self.text(root + "/cpu/online").flatMap(CPUSet.init)?.numbers
        cells = ids.compactMap { id in
            guard let cpus = Self.text("\(folder)/node\(id)/cpulist").flatMap(CPUSet.init)?.numbers else { return nil }
            let usable = online.map(cpus.intersection) ?? cpus
            return Cell(
                id: id, cpus: usable, memoryMiB: Self.memoryMiB("\(folder)/node\(id)/meminfo") ?? 0,
                siblings: Self.siblings(of: usable, root), socket: Self.socket(of: usable, root),
                pages: Self.hugePages("\(folder)/node\(id)/hugepages"))
        }
        if cells.isEmpty || cells.allSatisfy({ $0.cpus.isEmpty }) {
            let cpus = Set(0..<max(0, vcpus))
            cells = [
                Cell(
                    id: 0, cpus: cpus, memoryMiB: memoryMiB, siblings: cpus.sorted().map { [$0] }, socket: 0, pages: [:]
                )
            ]
        }
        for index in cells.indices {
            let reserved = cells[index].pages.reduce(0) { $0 + $1.key * $1.value }
            cells[index].pages[4] = max(0, cells[index].memoryMiB * 1024 - reserved) / 4
        }
    }

    /// The same host with pages kept back (`reserved_huge_pages`); what is kept of a node or a size that is not there counts nothing.
    func reserving(_ pages: [ReservedPages]) -> HostTopology {
        var topology = self
        for kept in pages {
            guard let index = topology.cells.firstIndex(where: { $0.id == kept.node }), topology.cells[index].pages[kept.sizeKiB] != nil else { continue }
            topology.cells[index].reserved[kept.sizeKiB] = kept.count
        }
        return topology
    }

    /// NUMATopology as text.
    ///
    /// - Parameters:
    ///   - shared: CPUs offered; nil: all.
    ///   - usage: what instances with cells take.
    func primitiveText(shared: Set<Int>?, usage: CellUsage = CellUsage(), profile: ReleaseProfile) -> String {
        let cells: [JSONValue] = cells.map { cell in
            let cpus = shared.map(cell.cpus.intersection) ?? cell.cpus
            let pages: [JSONValue] = cell.pages.sorted { $0.key < $1.key }.map { size, total in
                Self.object(
                    "NUMAPagesTopology", "1.1",
                    [
                        "size_kb": .nullable(size), "total": .nullable(total), "used": .nullable(max(0, usage.pages[cell.id]?[size] ?? 0)),
                        "reserved": .nullable(cell.reserved[size] ?? 0),
                    ])
            }
            return Self.object(
                "NUMACell", "1.5",
                [
                    "id": .nullable(cell.id), "cpuset": Self.numbers(cpus), "pcpuset": [],
                    "memory": .nullable(cell.memoryMiB), "cpu_usage": .nullable(max(0, usage.cpus[cell.id, default: 0])),
                    "memory_usage": .nullable(max(0, usage.memoryMiB[cell.id, default: 0])), "pinned_cpus": [],
                    "siblings": .array(cell.siblings.map(Self.numbers)), "mempages": .array(pages),
                    "network_metadata": Self.object("NetworkMetadata", "1.0", ["physnets": [], "tunneled": false]),
                    "socket": .nullable(cell.socket),
                ])
        }
        return Self.object("NUMATopology", "1.2", ["cells": .array(cells)]).serialize()
    }

    private static func object(_ name: String, _ version: String, _ fields: [String: JSONValue]) -> JSONValue {
        VersionedObject(name: name, version: version, fields: fields, changes: Set(fields.keys)).primitive
    }

    private static func numbers(_ set: Set<Int>) -> JSONValue { .array(set.sorted().map { .integer(Int64($0)) }) }

    private static func text(_ path: String) -> String? {
        (try? String(contentsOfFile: path, encoding: .utf8))?.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// "Node 0 MemTotal:       16082720 kB"
    private static func memoryMiB(_ path: String) -> Int? {
        guard let line = text(path)?.split(separator: "\n").first(where: { $0.contains("MemTotal:") }) else {
            return nil
        }
        let words = line.split(separator: " ")
        guard words.count >= 2, let kibibytes = Int(words[words.count - 2]) else { return nil }
        return kibibytes / 1024
    }

    private static func siblings(of cpus: Set<Int>, _ root: String) -> [Set<Int>] {
        var found: Set<Set<Int>> = []
        for cpu in cpus {
            let listed = text("\(root)/cpu/cpu\(cpu)/topology/thread_siblings_list").flatMap(CPUSet.init)?.numbers
            found.insert((listed ?? [cpu]).intersection(cpus).union([cpu]))
        }
        return found.sorted { ($0.min() ?? 0) < ($1.min() ?? 0) }
    }

    private static func socket(of cpus: Set<Int>, _ root: String) -> Int {
        guard let first = cpus.min(),
            let id = text("\(root)/cpu/cpu\(first)/topology/physical_package_id").flatMap({ Int($0) })
        else { return 0 }
        return max(0, id)
    }

    private static func hugePages(_ folder: String) -> [Int: Int] {
        var pages: [Int: Int] = [:]
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] {
            guard name.hasPrefix("hugepages-"), name.hasSuffix("kB"), let size = Int(name.dropFirst(10).dropLast(2))
            else { continue }
            pages[size] = text("\(folder)/\(name)/nr_hugepages").flatMap { Int($0) } ?? 0
        }
        return pages
    }
}
