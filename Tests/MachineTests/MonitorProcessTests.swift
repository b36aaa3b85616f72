import Glibc
import HostSystem
import JSON
import MachineConfiguration
import MonitorProtocol
import NetworkBackend
import Testing

/// Guests as the service runs them: started by descriptors, driven over the control socket.
extension GuestTests {
    @Suite struct MonitorProcessTests {
        @Test func guestThatPowersOffLeavesAProcessThatSaysWhyUntilQuit() throws {
            let path = "/tmp/apus-process-disk"
            #expect(
                system(
                    "truncate -s 16M \(path) && printf 'written by the host' | dd of=\(path) conv=notrunc status=none")
                    == 0)
            let monitor = try MonitorProcess(commandLine: "apus.test=poweroff") { machine in
                machine.disks = [
                    DiskConfiguration(id: "virtio-disk0", fd: try MonitorProcess.open(path, O_RDWR), serial: "8a1c")
                ]
                machine.rng = true
                machine.balloon = true
            }
            unlink(path)
            let client = try monitor.connect()
            #expect(try client.status().name == "instance-00000001")
            #expect(
                monitor.waitForConsole { $0.contains("reboot: Power down") || $0.contains("ready ") },
                "\(monitor.console.suffix(1500))")
            #expect(MonitorProcess.within(seconds: 60) { (try? client.status().state) == .shutdown })
            #expect(try client.status().reason == "guest-shutdown")
            _ = try client.waitFor { $0 == .shutdown(guest: true, reason: "guest-shutdown") }
            #expect(monitor.console.contains("disk vda 32768 sectors, starts with: written by the host"))
            let tail = try ConsoleTail(json: try client.ask(.console(bytes: 1 << 20)).get())
            #expect(tail.text == monitor.console)
            let statistics = try MachineStatistics(json: try client.ask(.stats).get())
            #expect(
                statistics.vcpus.count == 1 && statistics.vcpus[0].cpuNanoseconds > 0 && statistics.residentKiB > 1000)
            #expect(
                statistics.disks.first?.id == "virtio-disk0" && statistics.disks[0].readBytes > 0
                    && statistics.disks[0].errors == 0)
            #expect(statistics.balloon?.actualMiB == 256)
            #expect(try client.ask(.quit) == .success([:]))
            #expect(monitor.exitStatus() == 0)
        }

        @Test func operatorPausesResumesResetsAndPressesTheButton() throws {
            let monitor = try MonitorProcess()
            let client = try monitor.connect()
            #expect(monitor.waitForConsole { $0.contains("ready ") }, "\(monitor.console.suffix(1500))")
            #expect(try client.ask(.pause) == .success([:]))
            _ = try client.waitFor { $0 == .stop }
            let ran = try MachineStatistics(json: try client.ask(.stats).get()).vcpus[0].cpuNanoseconds
            usleep(200_000)
            #expect(try MachineStatistics(json: try client.ask(.stats).get()).vcpus[0].cpuNanoseconds == ran)
            #expect(try client.ask(.resume) == .success([:]))
            #expect(try client.ask(.reset) == .success([:]))
            #expect(monitor.waitForConsole { $0.components(of: "ready ") == 2 }, "\(monitor.console.suffix(1500))")
            #expect(try client.ask(.powerButton) == .success([:]))
            _ = try client.waitFor { $0 == .shutdown(guest: true, reason: "guest-shutdown") }
            #expect(try client.ask(.reset) == .success([:]))
            #expect(try client.status().state == .paused)
            #expect(try client.ask(.quit) == .success([:]))
            #expect(monitor.exitStatus() == 0)
        }

        @Test func terminationPullsThePlugAndSaysSo() throws {
            let monitor = try MonitorProcess { $0.startPaused = true }
            let client = try monitor.connect()
            #expect(try client.status().state == .paused)
            kill(monitor.pid, SIGTERM)
            _ = try client.waitFor { $0 == .shutdown(guest: false, reason: "host-signal") }
            #expect(monitor.exitStatus() == 0)
        }

        @Test func guestIsTypedAtSeesItsIdentityAndClockAndSurvivesBeingSaved() throws {
            let monitor = try MonitorProcess { machine in
                // Two cores of one package; the lab's processor has no TOPOEXT, without which an AMD guest takes threads for cores.
                machine.cpu = CPUConfiguration(count: 2, sockets: 1, cores: 2, threads: 1)
                machine.system.version = "26.2.2"
                machine.balloon = true
            }
            let client = try monitor.connect()
            try #require(monitor.waitForConsole { $0.contains("login:") }, "\(monitor.console.suffix(1500))")
            let console = try Connection(path: monitor.consolePath)
            func type(_ line: String, until answer: String) throws {
                try console.send(Array((line + "\n").utf8))
                try #require(monitor.waitForConsole { $0.contains(answer) }, "\(line): \(monitor.console.suffix(800))")
            }
            try type("root", until: "# ")
            let dmi = "/sys/class/dmi/id"
            try type(
                "echo \"<$(cat \(dmi)/sys_vendor) $(cat \(dmi)/product_version) $(cat \(dmi)/product_uuid)>\"",
                until: "<OpenStack Foundation 26.2.2 3f0a2b1c-0001-4c4b-9f5e-0123456789ab>")
            let cpu = "/sys/devices/system/cpu/cpu1/topology"
            try type(
                "echo \"topology $(cat \(cpu)/physical_package_id) $(cat \(cpu)/core_id) $(cat \(cpu)/thread_siblings_list)\"",
                until: "topology 0 1 1")
            try type(
                "d=$(( $(cat /sys/class/rtc/rtc0/since_epoch) - $(date +%s) )); [ ${d#-} -le 2 ] && echo rtc is $((1 + 1))",
                until: "rtc is 2")
            try type("grep -c rtc /proc/interrupts | sed 's/^/lines of rtc: /'", until: "lines of rtc: 1")

            // All of it goes out and comes back in the same process; the shell goes on where it was.
            #expect(try client.ask(.balloon(targetMiB: 200)) == .success([:]))
            #expect(
                MonitorProcess.within(seconds: 60) {
                    (try? MachineStatistics(json: client.ask(.stats).get()).balloon?.actualMiB) == 200
                })
            let balloon = try #require(try MachineStatistics(json: try client.ask(.stats).get()).balloon)
            #expect(balloon.statistics["total-memory"] ?? 0 > 100 << 20, "\(balloon)")
            let state = try makeMemoryFile(named: "state", byteCount: 0)
            #expect(try client.ask(.pause) == .success([:]))
            #expect(try client.ask(.getfd(name: "state"), with: state.rawValue) == .success([:]))
            guard case .success = try client.ask(.save(fdname: "state")) else {
                return #expect(Bool(false), "not saved")
            }
            #expect(try client.ask(.restore(fdname: "state")) == .success([:]))
            #expect(try client.ask(.resume) == .success([:]))
            try type("echo still $((40 + 2)) here", until: "still 42 here")
            try console.send(Array("poweroff -f\n".utf8))
            _ = try client.waitFor { $0 == .shutdown(guest: true, reason: "guest-shutdown") }
            #expect(try client.ask(.quit) == .success([:]))
            #expect(monitor.exitStatus() == 0)
        }

        @Test(arguments: [
            (name: "apusmq", queues: 2, vhost: false), (name: "apusvh", queues: 1, vhost: true),
            (name: "apusmtu", queues: 1, vhost: false),
        ])
        func guestReachesTheHostThroughEachKindOfNetwork(kind: (name: String, queues: Int, vhost: Bool)) throws {
            #expect(
                system(
                    "ip tuntap add \(kind.name) mode tap vnet_hdr \(kind.queues > 1 ? "multi_queue" : "") && ip addr add 10.56.0.1/24 dev \(kind.name) && ip link set \(kind.name) up mtu 1450"
                ) == 0)
            defer { _ = system("ip link del \(kind.name)") }
            let monitor = try MonitorProcess(commandLine: "apus.ip=10.56.0.2/24 apus.ping=10.56.0.1 apus.test=poweroff")
            { machine in
                machine.cpu = CPUConfiguration(count: kind.queues)
                var fds: [Int] = []
                for _ in 0..<kind.queues {
                    fds.append(Int(try openTap(named: kind.name, isMultiQueue: kind.queues > 1).release()))
                }
                let mac = try #require(MACAddress("fa:16:3e:00:00:01"))
                machine.networks = [NetworkConfiguration(id: kind.name, fds: fds, mac: mac, mtu: 1450)]
                if kind.vhost { machine.networks[0].vhostFd = try MonitorProcess.open("/dev/vhost-net", O_RDWR) }
            }
            let client = try monitor.connect()
            // Queues are taken back and handed out again wherever the driver stands.
            for _ in 0..<10 {
                #expect(try client.ask(.pause) == .success([:]))
                #expect(try client.ask(.resume) == .success([:]))
                usleep(500_000)
            }
            #expect(monitor.waitForConsole { $0.contains("packets received") }, "\(monitor.console.suffix(1500))")
            #expect(monitor.console.contains("3 packets received"), "\(monitor.console.suffix(1500))")
            _ = try client.waitFor { $0 == .shutdown(guest: true, reason: "guest-shutdown") }
            let network = try #require(try MachineStatistics(json: try client.ask(.stats).get()).networks.first)
            // Frames that the kernel moved are counted on the tap.
            #expect(
                network.id == kind.name && (kind.vhost ? network.sentPackets == 0 : network.sentPackets >= 3),
                "\(network)")
            #expect(try client.ask(.quit) == .success([:]))
            #expect(monitor.exitStatus() == 0)
        }

        @Test(arguments: [("{}", "version"), ("nonsense", "JSON"), (#"{"version":1,"path":"/etc/passwd"}"#, "missing")])
        func configurationThatIsNoMachineIsRefusedInWords(text: String, words: String) throws {
            var ends: [CInt] = [0, 0]
            try #require(pipe(&ends) == 0)
            let pid = try MonitorProcess.start(Array(text.utf8), handing: [], errors: ends[1])
            close(ends[1])
            var bytes = [UInt8](repeating: 0, count: 4096)
            let count = read(ends[0], &bytes, bytes.count)
            close(ends[0])
            var status: Int32 = 0
            #expect(waitpid(pid, &status, 0) == pid && status >> 8 & 0xFF == 1)
            #expect(String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self).contains(words))
        }
    }
}

extension String {
    func components(of part: String) -> Int {
        var count = 0
        var rest = self[...]
        while let range = rest.firstRange(of: part) {
            count += 1
            rest = rest[range.upperBound...]
        }
        return count
    }
}
