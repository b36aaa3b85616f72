import Glibc
import HostSystem
import JSON
import MachineConfiguration
import Testing

/// Where the pages of a running guest are, on a host of two nodes. The lab host of `kvm-tests` is one.
extension GuestTests {
    @Suite(.enabled(if: HostNodes.usable.contains(1), "this host has one node")) struct NodeGuestTests {
        /// Lines of numa_maps for guest RAM: the policy, and pages by node of the host.
        private func pages(of pid: pid_t) throws -> [(policy: String, pages: [String: Int])] {
            let file = try #require(fopen("/proc/\(pid)/numa_maps", "r"))
            defer { fclose(file) }
            var found: [(String, [String: Int])] = [], buffer = [CChar](repeating: 0, count: 4096)
            while fgets(&buffer, CInt(buffer.count), file) != nil {
                let line = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                guard line.contains("guest-ram") else { continue }
                let words = line.split(whereSeparator: \.isWhitespace).map(String.init)
                let counts = words.filter { $0.hasPrefix("N") }.map { $0.split(separator: "=").map(String.init) }.filter { $0.count == 2 }
                found.append((words.count > 1 ? words[1] : "", Dictionary(counts.map { ($0[0], Int($0[1]) ?? 0) }, uniquingKeysWith: +)))
            }
            return found
        }

        @Test func eachNodesPagesAreOfItsNodeOfTheHostAlone() throws {
            let monitor = try MonitorProcess { machine in
                machine.cpu = CPUConfiguration(count: 2)
                machine.numa = NUMAConfiguration(nodes: [
                    NUMAConfiguration.Node(cpus: [0], memoryMiB: 128, hostNode: 1), NUMAConfiguration.Node(cpus: [1], memoryMiB: 128, hostNode: 0),
                ])
            }
            #expect(monitor.waitForConsole { $0.contains("ready ") }, "\(monitor.console.suffix(1000))")
            let pages = try pages(of: monitor.pid)
            #expect(pages.map(\.policy) == ["bind:1", "bind:0"], "\(pages)")
            #expect(pages.first?.pages["N1"] ?? 0 > 1000 && pages.first?.pages["N0"] == nil, "\(pages)")
            #expect(pages.last?.pages["N0"] ?? 0 > 1000 && pages.last?.pages["N1"] == nil, "\(pages)")
        }

        @Test func hugePagesOfOneNodeMayRunOutThoughTheHostHasEnough() throws {
            func knob(_ node: Int) -> String { "/sys/devices/system/node/node\(node)/hugepages/hugepages-2048kB/nr_hugepages" }
            func set(_ zero: Int, _ one: Int) -> Bool { system("echo \(zero) > \(knob(0)); echo \(one) > \(knob(1)); test $(cat \(knob(1))) = \(one)") == 0 }
            defer { _ = set(0, 0) }
            let placement: (inout GuestConfiguration) -> Void = { machine in
                machine.hugePages = .twoMiB
                machine.numa = NUMAConfiguration(nodes: [NUMAConfiguration.Node(cpus: [0], memoryMiB: 256, hostNode: 1)])
            }
            try #require(set(100, 60))
            var ends: [CInt] = [0, 0]
            try #require(pipe(&ends) == 0)
            var machine = GuestConfiguration(name: "a", uuid: .zero, memoryMiB: 256, cpu: CPUConfiguration(count: 1))
            machine.kernel = try MonitorProcess.open(try #require(MonitorProcess.setting("APUS_TEST_KERNEL")))
            placement(&machine)
            let pid = try MonitorProcess.start(machine.json.serializedBytes(), handing: machine.namedDescriptors.map { CInt($0.number) }, errors: ends[1])
            close(ends[1])
            var bytes = [UInt8](repeating: 0, count: 4096), status: Int32 = 0
            let count = read(ends[0], &bytes, bytes.count)
            close(ends[0])
            let words = String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
            // An end in words, not by a signal.
            #expect(waitpid(pid, &status, 0) == pid && status & 0x7F == 0 && status >> 8 & 0xFF == 1, "\(status)")
            #expect(words.contains("128 pages of 2 MiB of host node 1") && words.contains(knob(1)), "\(words)")

            try #require(set(0, 130))
            let monitor = try MonitorProcess(commandLine: "apus.test=poweroff", placement)
            #expect(monitor.waitForConsole { $0.contains("ready ") }, "\(monitor.console.suffix(1000))")
        }
    }
}
