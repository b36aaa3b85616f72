import Glibc
import JSON
import MachineConfiguration
import MonitorProtocol
import Testing

/// Machines that start by firmware, without an operating system: the boot matrix of Tests/Lab goes on from there.
extension GuestTests {
    @Suite struct FirmwareGuestTests {
        private static let bios = "/usr/share/seabios/bios-256k.bin"
        /// A /dev/kvm that cannot boot Linux runs these all the same.
        private static let canRun = MonitorProcess.setting("APUS_BIOS_TESTS") == "1" && access(bios, R_OK) == 0
        private static let why: Comment =
            "the lab host's emulated processor loses a guest now and then where a BIOS changes modes: APUS_BIOS_TESTS=1 runs these, with seabios installed"

        private func start(_ type: MachineType, _ change: (inout GuestConfiguration) throws -> Void = { _ in }) throws -> MonitorProcess {
            try MonitorProcess { machine in
                for number in [machine.kernel, machine.initrd].compactMap({ $0 }) { close(CInt(number)) }
                (machine.kernel, machine.initrd, machine.type) = (nil, nil, type)
                machine.firmware = FirmwareConfiguration(code: try MonitorProcess.open(Self.bios))
                try change(&machine)
            }
        }

        @Test(.enabled(if: canRun, why), arguments: [MachineType.pc, .q35])
        func aBIOSFindsNothingToBootAndStartsAgainAfterEachReset(type: MachineType) throws {
            let monitor = try start(type)
            let client = try monitor.connect()
            for round in 1...3 {
                #expect(
                    monitor.waitForConsole { $0.components(of: "No bootable device") == round }, "round \(round): \(monitor.console.suffix(1500))")
                #expect(try client.ask(.reset) == .success([:]))
            }
            #expect(try client.ask(.quit) == .success([:]))
            #expect(monitor.exitStatus() == 0)
        }

        @Test(.enabled(if: canRun, why), arguments: [DiskBus.virtio, .scsi, .sata, .nvme, .ide, .fdc])
        func aBIOSRunsTheFirstSectorOfADiskOnEachBus(bus: DiskBus) throws {
            let path = "/tmp/apus-boot-sector-\(bus.rawValue)"
            // Writes "OK" and a line end to the first serial port, then halts.
            var sector: [UInt8] = [0xFA, 0xBA, 0xF8, 0x03]  // cli, so that the BIOS writes nothing in between; mov dx, 0x3F8
            for byte in Array("OK\n".utf8) { sector += [0xB0, byte, 0xEE] }  // mov al, byte; out dx, al
            sector += [0xF4, 0xEB, 0xFD]  // hlt; jmp back
            sector += [UInt8](repeating: 0, count: 510 - sector.count) + [0x55, 0xAA] + [UInt8](repeating: 0, count: (1440 << 10) - 512)
            let file = try #require(fopen(path, "w"))
            #expect(fwrite(sector, 1, sector.count, file) == sector.count)
            fclose(file)
            defer { unlink(path) }
            let monitor = try start(bus == .ide ? .pc : .q35) { machine in
                machine.disks = [DiskConfiguration(id: "disk", fd: try MonitorProcess.open(path, O_RDWR), bus: bus, bootIndex: 0)]
            }
            #expect(monitor.waitForConsole { $0.contains("OK\n") }, "\(monitor.console.suffix(1500))")
            let client = try monitor.connect()
            let disk = try MachineStatistics(json: try client.ask(.stats).get()).disks.first
            #expect((disk?.readRequests ?? 0) > 0 && disk?.errors == 0, "\(String(describing: disk))")
            #expect(try client.ask(.quit) == .success([:]))
            #expect(monitor.exitStatus() == 0)
        }
    }
}
