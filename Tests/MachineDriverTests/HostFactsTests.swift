import ComputeDriver
import JSON
import Testing

@testable import MachineDriver

struct HostFactsTests {
    private let cpuinfo = """
        processor\t: 0
        vendor_id\t: AuthenticAMD
        model name\t: AMD EPYC 7713
        physical id\t: 0
        core id\t\t: 0
        flags\t\t: fpu sse avx2 aes

        processor\t: 1
        vendor_id\t: AuthenticAMD
        physical id\t: 0
        core id\t\t: 0

        processor\t: 2
        physical id\t: 1
        core id\t\t: 0

        processor\t: 3
        physical id\t: 1
        core id\t\t: 0
        """

    @Test func topologyIsCountedFromTheKernelsText() {
        let processors = ProcessorInfo(cpuinfo: cpuinfo)
        #expect(processors.vendor == "AMD" && processors.model == "AMD EPYC 7713")
        #expect(processors.socketCount == 2 && processors.coresPerSocket == 1 && processors.threadsPerCore == 2)
        #expect(processors.json(numaNodeCount: 2)["topology"] == ["cells": 2, "sockets": 2, "cores": 1, "threads": 2])
        #expect(processors.json(numaNodeCount: 1)["features"] == ["fpu", "sse", "avx2", "aes"])
    }

    @Test func traitsNameOnlyWhatIsThere() {
        let traits = Traits.of(ProcessorInfo(cpuinfo: cpuinfo))
        #expect(
            traits.isSuperset(of: [
                "COMPUTE_IMAGE_TYPE_RAW", "HW_CPU_X86_AVX2", "HW_CPU_X86_AESNI", "HW_CPU_HYPERTHREADING",
            ]))
        #expect(!traits.contains("HW_CPU_X86_AVX") && !traits.contains("COMPUTE_IMAGE_TYPE_PLOOP"))
    }

    @Test func emptyTextsAreNoTrap() {
        let processors = ProcessorInfo(cpuinfo: "")
        #expect(processors.coresPerSocket == 1 && processors.threadsPerCore == 1)
        #expect(
            HostFacts.count(list: "") == 0 && HostFacts.count(list: "0-3,6\n") == 5
                && HostFacts.count(list: "7-1,x,-") == 0)
        #expect(HostFacts.memoryMiB(meminfo: "") == nil)
        #expect(HostFacts.memoryMiB(meminfo: "MemTotal:       16384000 kB\nMemFree: 1 kB\n") == 16000)
    }

    @Test func uptimeIsTheLineThatTheAPIParses() {
        let line = HostFacts.uptimeLine(uptime: "93784.55 1.00\n", loadavg: "0.10 0.20 0.30 1/2 3\n", now: (9, 5, 7))
        #expect(line == " 09:05:07 up 1 day,  2:03,  0 users,  load average: 0.10, 0.20, 0.30")
    }

    @Test func thisHostHasResources() async throws {
        let options = MachineDriverOptions(instancesPath: "/tmp", monitorPath: "/bin/true", runDirectory: "/tmp")
        let resources = try HostFacts.resources(of: options)
        #expect(resources.vcpus > 0 && resources.memoryMiB > 0 && resources.diskGiB > 0)
        #expect(resources.hypervisorType == "QEMU" && resources.supportedInstances == [["x86_64", "kvm", "hvm"]])
        #expect(try HostFacts.uptimeLine().contains("load average: "))
    }

    @Test(arguments: [
        ("instance-%08x", 255, "instance-000000ff"), ("vm-%d", 7, "vm-7"), ("%5d-x", 42, "   42-x"),
        ("plain", 3, "plain3"),
        ("%s", 3, "%s3"), ("%", 1, "%1"),
    ])
    func instanceNamesFollowTheTemplate(template: String, id: Int, name: String) {
        var options = MachineDriverOptions(instancesPath: "/x", monitorPath: "/x", runDirectory: "/x")
        options.instanceNameTemplate = template
        #expect(options.instanceName(id: id) == name)
    }
}
