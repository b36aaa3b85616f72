import Glibc
import HostSystem
import JSON
import MachineConfiguration
import MachineCore
import MonitorProtocol
import NetworkBackend
import Testing

@testable import Machine

/// Running guests, saved and restored in a new process each time, under load. APUS_SAVE_ROUNDS says how often: 5, or 100 for the whole
/// of it.
extension GuestTests {
    @Suite struct SaveRestoreTests {
        private static let rounds = MonitorProcess.setting("APUS_SAVE_ROUNDS").flatMap { Int($0) } ?? 5
        private static let directory = String(#filePath.prefix(upTo: #filePath.lastIndex(of: "/") ?? #filePath.startIndex))

        /// A saved state and what its monitor said of it.
        private final class Saved {
            let file: OwnedDescriptor
            let report: SaveReport

            init(_ file: consuming OwnedDescriptor, _ report: SaveReport) {
                self.file = file
                self.report = report
            }

            var number: CInt { file.rawValue }
        }

        /// Saves to a new file and ends the process.
        private func save(_ monitor: MonitorProcess, _ client: Connection, round: Int) throws -> Saved {
            let file = try makeMemoryFile(named: "state", byteCount: 0)
            #expect(try client.ask(.getfd(name: "state"), with: file.rawValue) == .success([:]))
            let report = try SaveReport(json: try client.ask(.save(fdname: "state")).get())
            #expect(try client.status().state == .paused, "round \(round)")
            #expect(try client.ask(.quit) == .success([:]))
            #expect(monitor.exitStatus() == 0, "round \(round)")
            return Saved(file, report)
        }

        /// Doublewords of RAM as they lie in a saved state.
        private func words(at address: UInt64, _ count: Int, in file: CInt) throws -> [UInt32] {
            let state = try StateFile(reading: file)
            var reader = StateReader(section: "ram", bytes: try readAll(file, at: state.memoryOffset + address, count: 4 * count, named: "RAM"))
            var words: [UInt32] = []
            for _ in 0..<count { words.append(try reader.read()) }
            return words
        }

        private func duplicate(_ number: CInt) -> Int { Int(dup(number)) }

        private func median(_ values: [Int]) -> Double { values.isEmpty ? 0 : Double(values.sorted()[values.count / 2]) / 1e6 }

        // MARK: A guest of a few hundred bytes

        /// LoadGuest/load-guest.s at the end of the address space: checks RAM and a disk under a thousand interrupts a second.
        private func startLoadGuest(
            _ firmware: CInt, _ disk: CInt, _ console: CInt, restoring state: CInt? = nil, paused: Bool = false, _ change: (inout GuestConfiguration) -> Void = { _ in }
        ) throws -> MonitorProcess {
            try MonitorProcess(memoryMiB: 16, console: console) { machine in
                machine.type = .pc
                machine.firmware = FirmwareConfiguration(code: duplicate(firmware))
                machine.disks = [DiskConfiguration(id: "disk", fd: duplicate(disk), bus: .ide)]
                machine.startPaused = paused
                machine.restore = state.map(duplicate)
                change(&machine)
            }
        }

        private func loadGuestImage() throws -> OwnedDescriptor {
            let path = Self.directory + "/LoadGuest/load-guest.bin", source = open(path, O_RDONLY)
            try #require(source >= 0, "open \(path): \(errorName(errno))")
            defer { close(source) }
            var image = try readAll(source, at: 0, count: 0xFFF0, named: "guest")
            image += [UInt8](repeating: 0xF4, count: 0x10000 - image.count)
            // The reset vector: jmp F000:0000.
            image.replaceSubrange(0xFFF0..<0xFFF5, with: [0xEA, 0, 0, 0, 0xF0])
            let file = try makeMemoryFile(named: "firmware", byteCount: 0)
            try writeAll(image, to: file.rawValue, at: 0, named: "firmware")
            return file
        }

        @Test func guestUnderMemoryDiskAndTimerLoadNoticesNothingInManyProcesses() throws {
            let firmware = try loadGuestImage(), disk = try makeMemoryFile(named: "disk", byteCount: 1 << 20), log = try makeMemoryFile(named: "console", byteCount: 0)
            var state: Saved?
            var last: [UInt32] = [0, 0, 0, 0, 0, 0], restores: [Int] = [], saves: [Int] = []
            for round in 0...Self.rounds {
                let monitor = try startLoadGuest(firmware.rawValue, disk.rawValue, log.rawValue, restoring: state?.number)
                let before = monitor.console.utf8.count
                let client = try monitor.connect()
                #expect(monitor.waitForConsole { $0.utf8.count > before + 2 }, "round \(round): \(monitor.console.suffix(100))")
                if round > 0 { restores.append(try #require(try client.status().restoreNanoseconds)) }
                let saved = try save(monitor, client, round: round)
                saves.append(saved.report.nanoseconds)
                #expect(!monitor.console.contains("E"), "round \(round)")
                // Passes, words that were wrong, ticks, sectors that were wrong, sectors, steps back of the time stamp counter.
                let now = try words(at: 0x500, 6, in: saved.number)
                #expect(now[0] > last[0] && now[2] > last[2] && now[4] > last[4], "round \(round): \(last) \(now)")
                #expect(now[1] == 0 && now[3] == 0 && now[5] == 0, "round \(round): \(now)")
                #expect(saved.report.ramBytes >= 512 << 10 && saved.report.ramBytes < 2 << 20, "\(saved.report)")
                try StateFile(reading: saved.number).verify()
                last = now
                state = saved
            }
            print("\(Self.rounds) rounds: restore to first entry \(median(restores)) ms (at most \(Double(restores.max() ?? 0) / 1e6)), save of 16 MiB \(median(saves)) ms")
        }

        @Test func aGuestInHugePagesAndNodesGoesOnInThem() throws {
            let knob = "/proc/sys/vm/nr_hugepages", firmware = try loadGuestImage()
            let disk = try makeMemoryFile(named: "disk", byteCount: 1 << 20), log = try makeMemoryFile(named: "console", byteCount: 0)
            try #require(system("cp \(knob) /tmp/apus-huge-pages; echo 8 > \(knob); test $(cat \(knob)) = 8") == 0)
            defer { _ = system("cat /tmp/apus-huge-pages > \(knob); rm /tmp/apus-huge-pages") }
            let huge: (inout GuestConfiguration) -> Void = { machine in
                machine.hugePages = .twoMiB
                machine.numa = NUMAConfiguration(nodes: [
                    NUMAConfiguration.Node(cpus: [0], memoryMiB: 8, hostNode: 0), NUMAConfiguration.Node(cpus: [], memoryMiB: 8),
                ])
            }
            var state: Saved?
            var passes: UInt32 = 0
            for round in 0...2 {
                let monitor = try startLoadGuest(firmware.rawValue, disk.rawValue, log.rawValue, restoring: state?.number, huge)
                let before = monitor.console.utf8.count, client = try monitor.connect()
                #expect(monitor.waitForConsole { $0.utf8.count > before + 2 }, "round \(round): \(monitor.console.suffix(100))")
                #expect(system("test $(awk '/HugePages_Free/{print $2}' /proc/meminfo) = 0") == 0, "round \(round): RAM is of huge pages")
                let saved = try save(monitor, client, round: round)
                let now = try words(at: 0x500, 6, in: saved.number)
                #expect(now[0] > passes && now[1] == 0 && now[3] == 0 && now[5] == 0, "round \(round): \(now)")
                #expect(saved.report.ramBytes < 2 << 20, "pages of zeroes are no part of it: \(saved.report)")
                try StateFile(reading: saved.number).verify()
                passes = now[0]
                state = saved
            }
        }

        @Test func restoredPausedAndSavedAgainItIsTheSame() throws {
            let firmware = try loadGuestImage(), disk = try makeMemoryFile(named: "disk", byteCount: 1 << 20), log = try makeMemoryFile(named: "console", byteCount: 0)
            let first = try startLoadGuest(firmware.rawValue, disk.rawValue, log.rawValue)
            #expect(first.waitForConsole { $0.utf8.count > 2 })
            let one = try save(first, try first.connect(), round: 0)
            let second = try startLoadGuest(firmware.rawValue, disk.rawValue, log.rawValue, restoring: one.number, paused: true)
            let client = try second.connect()
            let status = try client.status()
            #expect(status.state == .paused && status.restoreNanoseconds == nil)
            let other = try save(second, client, round: 1)
            let left = try StateFile(reading: one.number), right = try StateFile(reading: other.number)
            #expect(left.memory == right.memory)
            // Time goes on in the vCPU's counters and in the 8254, which KVM starts anew.
            let moving = ["machine", "interrupt-controllers", "vcpu-0"]
            for (a, b) in zip(left.entries, right.entries) where !moving.contains(a.name) { #expect(a == b, "\(a.name)") }
            #expect(left.entries.map(\.byteCount) == right.entries.map(\.byteCount))
        }

        @Test func stateThatDoesNotFitEndsTheProcessInWords() throws {
            let file = try makeMemoryFile(named: "state", byteCount: 8192), firmware = try loadGuestImage()
            var ends: [CInt] = [0, 0]
            try #require(pipe(&ends) == 0)
            var machine = GuestConfiguration(name: "a", uuid: .zero, memoryMiB: 16, cpu: CPUConfiguration(count: 1), type: .pc)
            machine.firmware = FirmwareConfiguration(code: duplicate(firmware.rawValue))
            machine.restore = duplicate(file.rawValue)
            let pid = try MonitorProcess.start(
                machine.json.serializedBytes(), handing: machine.namedDescriptors.map { CInt($0.number) }, errors: ends[1])
            close(ends[1])
            var bytes = [UInt8](repeating: 0, count: 4096)
            let count = read(ends[0], &bytes, bytes.count)
            close(ends[0])
            var status: Int32 = 0
            #expect(waitpid(pid, &status, 0) == pid && status >> 8 & 0xFF == 1)
            let words = String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
            #expect(words.contains("section header: the save was not finished"), "\(words)")
        }

        // MARK: Linux

        @Test func linuxUnderDiskNetworkAndTimerLoadNoticesOnlyTheTime() throws {
            let tap = "apussave"
            try #require(system("ip tuntap add \(tap) mode tap vnet_hdr && ip addr add 10.57.0.1/24 dev \(tap) && ip link set \(tap) up") == 0)
            defer { _ = system("ip link del \(tap)") }
            let disk = try makeMemoryFile(named: "disk", byteCount: 16 << 20), log = try makeMemoryFile(named: "console", byteCount: 0)
            let mac = try #require(MACAddress("fa:16:3e:00:00:09"))
            var state: Saved?
            var passes = 0, uptime = 0.0, restores: [Int] = [], saves: [Int] = []
            for round in 0...Self.rounds {
                let monitor = try MonitorProcess(commandLine: "apus.test=load apus.ip=10.57.0.2/24 apus.load=10.57.0.1", console: log.rawValue) { machine in
                    machine.cpu = CPUConfiguration(count: 2)
                    machine.disks = [DiskConfiguration(id: "virtio-disk0", fd: duplicate(disk.rawValue))]
                    machine.networks = [NetworkConfiguration(id: tap, fds: [Int(try openTap(named: tap, isMultiQueue: false).release())], mac: mac)]
                    (machine.rng, machine.balloon) = (true, true)
                    machine.restore = state.map { duplicate($0.number) }
                }
                let client = try monitor.connect()
                let arrived = monitor.waitForConsole { Self.loads(in: $0).count >= passes + 2 }
                try #require(arrived, "round \(round): \(monitor.console.suffix(1500))")
                if round > 0 { restores.append(try #require(try client.status().restoreNanoseconds)) }
                let loads = Self.loads(in: monitor.console)
                for load in loads[passes...] {
                    #expect(load.words == "memory ok, disk ok, network ok", "round \(round): \(load)")
                    #expect(load.uptime >= uptime && load.uptime < uptime + 120, "round \(round): \(uptime), then \(load.uptime)")
                    uptime = load.uptime
                }
                passes = loads.count
                for complaint in ["lockup", "stall", "I/O error", "unstable", "Oops", "BUG", "NETDEV WATCHDOG", "timed out"] {
                    #expect(!monitor.console.contains(complaint), "round \(round): \(monitor.console.suffix(1500))")
                }
                let saved = try save(monitor, client, round: round)
                saves.append(saved.report.nanoseconds)
                state = saved
            }
            print("Linux, \(Self.rounds) rounds, \(passes) loads: restore to first entry \(median(restores)) ms (at most \(Double(restores.max() ?? 0) / 1e6)), save of 256 MiB \(median(saves)) ms")
        }

        /// "load N: WORDS, up SECONDS" of the guest's console, as far as lines are whole.
        private static func loads(in console: String) -> [(words: String, uptime: Double)] {
            let whole = console[..<(console.lastIndex(where: \.isNewline) ?? console.startIndex)]
            return whole.split(whereSeparator: \.isNewline).compactMap { line in
                guard line.hasPrefix("load "), let colon = line.firstIndex(of: ":"), let up = line.firstRange(of: ", up ") else { return nil }
                guard colon < up.lowerBound, let seconds = Double(line[up.upperBound...]) else { return nil }
                return (String(line[line.index(colon, offsetBy: 2)..<up.lowerBound]), seconds)
            }
        }
    }
}
