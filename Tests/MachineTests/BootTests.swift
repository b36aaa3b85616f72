import Glibc
import HostSystem
import Machine
import Testing

private func setting(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

/// Guests on the monitor as it is shipped: a process with a command line, a console and an exit status.
extension GuestTests {
    @Suite struct BootTests {
        private func boot(_ words: String, _ options: String = "", kernel: String? = nil, before: String = "") throws -> (
            status: Int32, console: String
        ) {
            let monitor = try #require(setting("APUS_TEST_MONITOR")),
                kernel = try #require(kernel ?? setting("APUS_TEST_KERNEL"))
            let initrd = try #require(setting("APUS_TEST_INITRD"))
            let command =
                "exec 2>&1; \(before) timeout 120 '\(monitor)' --kernel '\(kernel)' --initrd '\(initrd)' --cmdline 'console=ttyS0 panic=-1 \(words)' \(options) 2>&1 </dev/null"
            let pipe = try #require(popen(command, "r"))
            var console = ""
            var buffer = [CChar](repeating: 0, count: 4096)
            while fgets(&buffer, CInt(buffer.count), pipe) != nil {
                console += String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            }
            return (pclose(pipe) >> 8, console)
        }

        @Test func linuxReachesUserspaceAndPowersOff() throws {
            let run = try boot("apus.test=poweroff")
            #expect(run.console.contains("ready "), "\(run.console.suffix(2000))")
            #expect(
                run.console.contains("reboot: Power down") && run.status == 0,
                "exit status \(run.status): \(run.console.suffix(500))")
            #expect(!run.console.contains("ACPI Error") && !run.console.contains("Firmware Bug"))
        }

        @Test func twoProcessorsAreSeen() throws {
            let run = try boot("quiet apus.test=poweroff", "--cpus 2 --memory 512")
            #expect(run.console.contains("cpus 2 "), "\(run.console.suffix(2000))")
            #expect(run.status == 0)
        }

        /// What the guest says of its nodes, by number: vCPUs, kB, distances.
        private func nodes(_ console: String) -> [(cpus: String, kibibytes: Int, distance: String)] {
            console.split(whereSeparator: \.isNewline).compactMap { line in
                let halves = line.split(separator: ": cpus ", maxSplits: 1)
                guard line.hasPrefix("node"), halves.count == 2 else { return nil }
                let parts = halves[1].split(separator: ", ").map(String.init)
                guard parts.count == 3, let kibibytes = Int(parts[1].drop { !$0.isNumber }.prefix { $0.isNumber }) else { return nil }
                return (parts[0], kibibytes, String(parts[2].dropFirst("distance ".count)))
            }
        }

        @Test func twoNodesAreSeenWithTheirProcessorsMemoryAndDistances() throws {
            let run = try boot(
                "quiet apus.test=poweroff", "--cpus 3 --memory 512 --numa cpus=0,cpus=2,memory=320,host=0 --numa cpus=1,memory=192 --distance 0,1,25")
            let nodes = nodes(run.console)
            #expect(nodes.map(\.cpus) == ["0,2", "1"] && nodes.map(\.distance) == ["10 25", "25 10"], "\(run.console.suffix(2000))")
            // The kernel keeps its own code and what it must out of the totals; its code is in either node.
            let kibibytes = nodes.map(\.kibibytes)
            #expect(kibibytes.count == 2 && 256 << 10...320 << 10 ~= kibibytes[0] && 128 << 10...192 << 10 ~= kibibytes[1], "\(nodes)")
            #expect(run.status == 0 && !run.console.contains("Firmware Bug"))
        }

        @Test func nodesAroundTheHoleBelow4GiBAreSeen() throws {
            let run = try boot("quiet apus.test=poweroff", "--cpus 2 --memory 3072 --numa cpus=0,memory=2048 --numa cpus=1,memory=1024")
            let nodes = nodes(run.console)
            #expect(nodes.map(\.cpus) == ["0", "1"] && nodes.map(\.distance) == ["10 20", "20 10"], "\(run.console.suffix(2000))")
            #expect(nodes.count == 2 && nodes[1].kibibytes > 896 << 10 && nodes[1].kibibytes <= 1024 << 10, "\(nodes)")
        }

        @Test func hugePagesAreTakenAtTheStartAndTooFewAreToldInWords() throws {
            let knob = "/proc/sys/vm/nr_hugepages", count = "awk '/HugePages_Total/{print $2}' /proc/meminfo"
            #expect(system("\(count) > /tmp/apus-huge-pages; echo 0 > \(knob)") == 0)
            defer { _ = system("cat /tmp/apus-huge-pages > \(knob); rm /tmp/apus-huge-pages") }
            let refused = try boot("quiet apus.test=poweroff", "--hugepages 2M")
            #expect(refused.status == 1 && refused.console.contains("take 128 pages of 2 MiB for guest RAM") && refused.console.contains(knob), "\(refused)")
            #expect(system("echo 160 > \(knob); test $(\(count)) -ge 160") == 0)
            let free = "awk '/HugePages_Free/{print $2}' /proc/meminfo"
            let watch = "(for i in $(seq 300); do n=$(\(free)); [ $n -gt 32 ] || { echo least free $n; break; }; sleep 0.1; done >&2) &"
            let run = try boot(
                "quiet apus.test=poweroff", "--cpus 2 --hugepages 2M --numa cpus=0,memory=128,host=0 --numa cpus=1,memory=128", before: watch)
            #expect(run.status == 0 && nodes(run.console).count == 2, "\(run.console.suffix(2000))")
            #expect(run.console.contains("least free 32"), "\(run.console.suffix(2000))")
        }

        @Test func memoryContinuesAboveTheHoleBelow4GiB() throws {
            let run = try boot("quiet apus.test=poweroff", "--memory 3072")
            #expect(run.status == 0, "\(run.console.suffix(2000))")
            // All of it but what the kernel keeps for itself: more than fits below the hole.
            let kibibytes = run.console.split(separator: "memory ").last.flatMap { Int($0.prefix { $0.isNumber }) }
            #expect(kibibytes.map { $0 > 2816 << 10 && $0 < 3072 << 10 } == true, "\(run.console.suffix(500))")
        }

        @Test func elfKernelBootsByItsPVHEntry() throws {
            let vmlinux = try #require(setting("APUS_TEST_VMLINUX"))
            let run = try boot("quiet apus.test=poweroff", kernel: vmlinux)
            #expect(run.console.contains("ready ") && run.status == 0, "\(run.console.suffix(2000))")
        }

        @Test func guestResetStartsItAgainAndNoRebootEndsIt() throws {
            let ended = try boot("quiet apus.test=reboot", "--no-reboot")
            #expect(ended.console.contains("ready ") && ended.status == 0, "\(ended.console.suffix(2000))")
        }

        @Test func diskIsReadByTheGuestsDriver() throws {
            let path = "/tmp/apus-boot-disk"
            #expect(
                system(
                    "truncate -s 16M \(path) && printf 'written by the host' | dd of=\(path) conv=notrunc status=none")
                    == 0)
            let run = try boot("apus.test=poweroff", "--disk \(path)")
            #expect(
                run.console.contains("disk vda 32768 sectors, starts with: written by the host"),
                "\(run.console.suffix(3000))")
            #expect(run.status == 0)
            unlink(path)
        }

        @Test func guestPingsTheHostThroughItsTapAndFindsEntropyAndBalloon() throws {
            #expect(
                system(
                    "ip tuntap add apusbt mode tap vnet_hdr && ip addr add 10.55.0.1/24 dev apusbt && ip link set apusbt up"
                ) == 0)
            let run = try boot(
                "quiet apus.ip=10.55.0.2/24 apus.ping=10.55.0.1 apus.test=poweroff",
                "--net apusbt,fa:16:3e:00:00:01 --rng --balloon")
            _ = system("ip link del apusbt")
            #expect(run.console.contains("3 packets received"), "\(run.console.suffix(1500))")
            #expect(run.console.contains("random: 16 bytes from virtio_rng"), "\(run.console.suffix(1500))")
            #expect(run.console.contains("balloon: bound") && run.status == 0)
        }

        @Test(arguments: [
            ("--numa memory=256", "vCPU 0 is in none"), ("--numa cpus=0,memory=128", "128 MiB of the machine's 256"), ("--numa cpu=0", "cpu=0 is none of"),
            ("--hugepages 3M", "one of 2M, 1G"), ("--hugepages 2M --memory 65", "no multiple"), ("--distance 0,1", "two nodes and a number"),
            ("--memory 1", "MiB from 64"), ("--cpus 0", "1 to 64"), ("--nonsense", "no option"),
            ("--disk fd:99", "no such open descriptor"), ("--net x", "MAC address"),
        ])
        func wrongUsageIsToldInWordsWithStatus2(options: String, words: String) throws {
            let run = try boot("", options)
            #expect(run.status == 2 && run.console.contains(words), "\(run)")
        }
    }
}
