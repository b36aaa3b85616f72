import Glibc
import HostSystem
import JSON
import MachineConfiguration
import MonitorProtocol
import NetworkBackend
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

        /// A CD that boots without emulation (El Torito 1.0): descriptors in sectors 16 to 18, the catalog in 19, the program in 20.
        private static func disc(_ program: [UInt8]) -> [UInt8] {
            func sector(_ bytes: [UInt8]) -> [UInt8] { bytes + [UInt8](repeating: 0, count: 2048 - bytes.count) }
            func text(_ text: String, _ count: Int) -> [UInt8] { Array(text.utf8) + [UInt8](repeating: 0, count: count - text.utf8.count) }
            let primary = sector([1] + Array("CD001".utf8) + [1]), end = sector([255] + Array("CD001".utf8) + [1])
            let boot = sector([0] + Array("CD001".utf8) + [1] + text("EL TORITO SPECIFICATION", 64) + [19, 0, 0, 0])
            // The validation entry's words add up to zero: 0x0001 and 0xAA55, and what makes up for them.
            let validation: [UInt8] = [1, 0, 0, 0] + text("", 24) + [0xAA, 0x55, 0x55, 0xAA]
            let entry: [UInt8] = [0x88, 0, 0, 0, 0, 0, 4, 0, 20, 0, 0, 0]
            return [UInt8](repeating: 0, count: 16 * 2048) + primary + boot + end + sector(validation + entry) + sector(program)
        }

        /// A CD before and behind a disk that does not boot; the firmware's own order puts disks first.
        @Test(
            .enabled(if: canRun, why),
            arguments: [(DiskBus.sata, MachineType.q35, 0), (.sata, .pc, 1), (.ide, .pc, 0), (.ide, .pc, 1), (.scsi, .q35, 0), (.scsi, .pc, 1)])
        func aBIOSBootsACDInItsPlace(bus: DiskBus, type: MachineType, place: Int) throws {
            // "CD", and 0x22 to the port that ends the monitor with (0x22 << 1) | 1.
            let program: [UInt8] = [0xFA, 0xBA, 0xF8, 0x03, 0xB0, 0x43, 0xEE, 0xB0, 0x44, 0xEE, 0xB0, 0x0A, 0xEE, 0xB0, 0x22, 0xE6, 0xF4, 0xF4, 0xEB, 0xFD]
            let image = Self.disc(program), file = try makeMemoryFile(named: "disc", byteCount: image.count).release()
            #expect(pwrite(file, image, image.count, 0) == image.count)
            let monitor = try start(type) { machine in
                let disk = try makeMemoryFile(named: "disk", byteCount: 1 << 20).release()
                machine.disks = [
                    DiskConfiguration(id: "disk", fd: Int(disk), bootIndex: 1 - place),
                    DiskConfiguration(id: "disc", fd: Int(file), readOnly: true, bus: bus, isOptical: true, bootIndex: place),
                ]
                machine.board.debugExit = true
            }
            #expect(monitor.exitStatus() == 0x45 && monitor.console.contains("CD\n"), "\(monitor.console.suffix(1500))")
        }

        private static let rom = "/usr/lib/ipxe/qemu/pxe-virtio.rom"
        private static let hasROM = canRun && getuid() == 0 && access(rom, R_OK) == 0

        /// The whole way to a server and back is the boot matrix's: iPXE needs a /dev/kvm with hardware semantics from here on.
        @Test(.enabled(if: hasROM, "needs root for a tap, and ipxe-qemu's ROM"), arguments: [MachineType.q35, .pc])
        func aBIOSRunsTheROMOfANetworkCardInItsPlace(type: MachineType) throws {
            let tap = try openTap(named: "apusrom\(getpid())", isMultiQueue: false).release()
            let monitor = try start(type) { machine in
                machine.disks = [DiskConfiguration(id: "disk", fd: Int(try makeMemoryFile(named: "disk", byteCount: 1 << 20).release()), bootIndex: 0)]
                machine.networks = [
                    NetworkConfiguration(
                        id: "net", fds: [Int(tap)], mac: try #require(MACAddress("fa:16:3e:00:00:07")), bootIndex: 1, rom: try MonitorProcess.open(Self.rom))
                ]
            }
            let isRunning = monitor.waitForConsole { $0.contains("iPXE initialising devices...ok") }
            let console = monitor.console
            #expect(isRunning, "\(console.suffix(2000))")
            let parts = console.split(separator: "Booting from ROM", maxSplits: 1)
            #expect(parts.count == 2 && parts[0].contains("not a bootable disk"), "the disk comes first: \(console.suffix(2000))")
        }
    }
}
