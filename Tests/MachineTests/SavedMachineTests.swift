import Chipset
import Glibc
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import MonitorProtocol
import Synchronization
import Testing
import VirtIO

@testable import Machine

/// Whole machines in files, without a processor: what is written, what is refused, and files of released versions.
struct SavedMachineTests {
    private static let directory = String(#filePath.prefix(upTo: #filePath.lastIndex(of: "/") ?? #filePath.startIndex)) + "/SavedStates"

    /// A machine with every device that needs nothing of the host, and what was put into it.
    private final class Sample {
        let machine: GuestMachine
        let driver: StateDriver

        /// - Parameter change: what is different from the machine of the released files.
        init(_ type: MachineType, _ change: (inout GuestConfiguration) throws -> Void = { _ in }) throws {
            var configuration = GuestConfiguration(
                name: "sample", uuid: .zero, memoryMiB: 2, cpu: CPUConfiguration(count: 2, sockets: 1, cores: 2, threads: 1), type: type, kernel: -1, rng: true,
                balloon: true)
            func disk(_ id: String, _ bus: DiskBus, isOptical: Bool = false) throws -> DiskConfiguration {
                DiskConfiguration(
                    id: id, fd: Int(try makeMemoryFile(named: id, byteCount: 1 << 20).release()), readOnly: isOptical, bus: bus, isOptical: isOptical)
            }
            configuration.disks = [try disk("virtio", .virtio)]
            if type != .direct {
                let code = try makeMemoryFile(named: "code", byteCount: 64 << 10).release()
                configuration.kernel = nil
                configuration.firmware = FirmwareConfiguration(code: Int(code), variables: Int(try makeMemoryFile(named: "variables", byteCount: 256 << 10).release()))
                configuration.disks += [try disk("nvme", .nvme), try disk("scsi", .scsi), try disk("sata", .sata), try disk("cd", .sata, isOptical: true)]
                if type == .pc { configuration.disks.append(try disk("ide", .ide)) }
            }
            try change(&configuration)
            machine = try GuestMachine(
                configuration, accelerator: FakeAccelerator(), output: NoConsole(), loop: try EventLoop(), isToBeRestored: true
            ) { _ in BootRegisters(mode: .real, rip: 0) }
            driver = StateDriver(machine, requests: machine.requests, policies: MachinePolicies()) { _ in }
            try driver.perform(.pause)
        }

        deinit { machine.end() }

        /// Leaves traces in the chips, and in RAM below and above what one chunk holds.
        func use() throws {
            machine.board.serial.write(offset: 1, width: .byte, value: 0x0D)
            machine.board.serial.write(offset: 7, width: .byte, value: 0x5A)
            machine.board.ports.write(0xCF8, width: .doubleWord, value: 0x8000_0800)
            machine.board.ports.write(0x70, width: .byte, value: 0x50)
            machine.board.ports.write(0x71, width: .byte, value: 0x77)
            machine.board.balloon?.setTarget(pages: 17)
            try machine.board.memory.write(Array("RAM".utf8), at: GuestAddress(0x1FFFF0))
        }

        func expectUsed(_ from: SourceLocation = #_sourceLocation) throws {
            #expect(machine.board.serial.read(offset: 1, width: .byte) == 0x0D, sourceLocation: from)
            #expect(machine.board.serial.read(offset: 7, width: .byte) == 0x5A, sourceLocation: from)
            #expect(machine.board.ports.read(0xCF8, width: .doubleWord) == 0x8000_0800, sourceLocation: from)
            machine.board.ports.write(0x70, width: .byte, value: 0x50)
            #expect(machine.board.ports.read(0x71, width: .byte) == 0x77, sourceLocation: from)
            #expect(machine.board.balloon?.targetPages == 17, sourceLocation: from)
            let kept = try machine.board.memory.bytes(at: GuestAddress(0x1FFFF0), count: 3)
            #expect(kept == Array("RAM".utf8), sourceLocation: from)
        }

        func save() throws -> OwnedDescriptor {
            let file = try makeMemoryFile(named: "state", byteCount: 0)
            _ = try machine.collectState().write(to: file.rawValue)
            return file
        }

        func restore(_ file: CInt) throws {
            try machine.restore(try machine.openState(file), isFresh: true, began: SystemClock.monotonicNanoseconds)
        }
    }

    private static func bytes(_ file: CInt) throws -> [UInt8] {
        try readAll(file, at: 0, count: Int(lseek(file, 0, SEEK_END)), named: "state")
    }

    private static func file(_ bytes: [UInt8]) throws -> OwnedDescriptor {
        let file = try makeMemoryFile(named: "damaged", byteCount: 0)
        try writeAll(bytes, to: file.rawValue, at: 0, named: "damaged")
        return file
    }

    /// Writes a changed header or table back with checksums that are right.
    private static func sealed(_ bytes: [UInt8], header: StateHeader, entries: [StateTableEntry]) -> [UInt8] {
        var header = header
        let table = StateTableEntry.encode(entries)
        (header.tableChecksum, header.tableByteCount, header.sectionCount) = (Checksum.of(table), UInt32(table.count), UInt32(entries.count))
        var bytes = bytes
        bytes.replaceSubrange(..<StateHeader.byteCount, with: header.bytes)
        bytes.replaceSubrange(StateHeader.byteCount..<(StateHeader.byteCount + table.count), with: table)
        return bytes
    }

    // MARK: Round trips

    @Test(arguments: MachineType.allCases)
    func savedRestoredAndSavedAgainIsTheSame(type: MachineType) throws {
        let first = try Sample(type)
        try first.use()
        let saved = try first.save()
        let second = try Sample(type)
        try second.restore(saved.rawValue)
        let again = try second.save()
        // But for the second when it was saved.
        let (one, other) = (try StateFile(reading: saved.rawValue), try StateFile(reading: again.rawValue))
        #expect(one.entries.map(\.name) == other.entries.map(\.name) && one.memory == other.memory)
        for (left, right) in zip(one.entries, other.entries) where left.name != StateSectionName.machine {
            #expect(left == right, "\(left.name)")
        }
        try second.expectUsed()
        // It runs, and what runs can be saved.
        try second.driver.perform(.resume)
        try second.driver.perform(.pause)
        let third = try second.save()
        try StateFile(reading: third.rawValue).verify()
    }

    @Test func stateTakesThePlaceOfAMachineThatRan() throws {
        let first = try Sample(.q35)
        try first.use()
        let saved = try first.save()
        let second = try Sample(.q35)
        try second.driver.perform(.resume)
        second.machine.board.serial.write(offset: 7, width: .byte, value: 0x11)
        try second.driver.perform(.pause)
        try second.driver.replaceState {
            try second.machine.restore(try second.machine.openState(saved.rawValue), isFresh: false, began: 1)
        }
        #expect(second.driver.state == .paused)
        try second.expectUsed()
    }

    @Test func boardsTimeStandsStillWhileItIsPausedAndGoesOnInAnotherProcess() throws {
        let first = try Sample(.q35)
        try first.driver.perform(.resume)
        usleep(20_000)
        try first.driver.perform(.pause)
        let stood = first.machine.board.time.nanoseconds
        #expect(stood >= 20_000_000)
        usleep(20_000)
        #expect(first.machine.board.time.nanoseconds == stood)
        let saved = try first.save()
        let second = try Sample(.q35)
        try second.restore(saved.rawValue)
        #expect(second.machine.board.time.nanoseconds == stood)
        try second.driver.perform(.resume)
        let now = second.machine.board.time.nanoseconds
        #expect(now >= stood && now < stood + 5_000_000_000)
    }

    // MARK: Refusals

    /// Every section's bytes, the header's and the table's: one flipped bit each, in the place and with the name that is told.
    @Test func damageIsRefusedWithTheSectionThatHasIt() throws {
        let sample = try Sample(.q35)
        try sample.use()
        let saved = try sample.save()
        let whole = try Self.bytes(saved.rawValue)
        let state = try StateFile(reading: saved.rawValue)
        var places = [(StateSectionName.header, 9), (StateSectionName.header, 20), (StateSectionName.header, 61), (StateSectionName.table, StateHeader.byteCount + 5)]
        for entry in state.entries where entry.name != StateSectionName.ram && entry.byteCount > 0 {
            places.append((entry.name, Int(entry.offset)))
            places.append((entry.name, Int(entry.offset + entry.byteCount) - 1))
        }
        for (name, place) in places {
            var bytes = whole
            bytes[place] ^= 0x10
            let file = try Self.file(bytes)
            let error = #expect(throws: MachineStateError.self, "\(name) at \(place)") { _ = try sample.machine.openState(file.rawValue) }
            #expect(error?.section == name && error?.reason.contains("checksum") == true && error?.remedy.isEmpty == false, "\(String(describing: error))")
        }
        // Nothing of it was taken over.
        try sample.expectUsed()
    }

    @Test func damagedRAMIsFoundByWhoeverVerifies() throws {
        let sample = try Sample(.direct)
        try sample.use()
        let saved = try sample.save()
        let state = try StateFile(reading: saved.rawValue)
        try state.verify()
        var byte: UInt8 = 1
        #expect(pwrite(saved.rawValue, &byte, 1, off_t(state.memoryOffset + 0x12345)) == 1)
        let error = #expect(throws: MachineStateError.self) { try state.verify() }
        #expect(error?.section == StateSectionName.ram && error?.reason.contains("from 0 on") == true, "\(String(describing: error))")
        // A restore is lazy, and looks at none of it.
        _ = try sample.machine.openState(saved.rawValue)
    }

    @Test func fileThatWasCutOrGrewIsRefusedWhereverThatWas() throws {
        let sample = try Sample(.direct)
        let saved = try sample.save()
        let whole = try Self.bytes(saved.rawValue)
        for length in [0, 1, 8, 63, 64, 65, 200, 4096, whole.count / 2, whole.count - 1] {
            let file = try Self.file(Array(whole.prefix(length)))
            let error = #expect(throws: MachineStateError.self, "\(length) bytes") { _ = try sample.machine.openState(file.rawValue) }
            #expect(error?.section == StateSectionName.header, "\(String(describing: error))")
        }
        let grown = try Self.file(whole + [0])
        #expect(throws: MachineStateError.self) { _ = try sample.machine.openState(grown.rawValue) }
        let zeros = try Self.file([UInt8](repeating: 0, count: whole.count))
        #expect(throws: MachineStateError("restore", section: "header", reason: "the save was not finished", remedy: "save again, or start the machine anew")) {
            _ = try sample.machine.openState(zeros.rawValue)
        }
    }

    @Test func newerFormatOrSectionIsRefusedInWords() throws {
        let sample = try Sample(.q35)
        let saved = try sample.save()
        let whole = try Self.bytes(saved.rawValue), state = try StateFile(reading: saved.rawValue)
        var header = state.header
        header.version = 2
        let newer = try Self.file(Self.sealed(whole, header: header, entries: state.entries))
        let error = #expect(throws: MachineStateError.self) { _ = try sample.machine.openState(newer.rawValue) }
        #expect(error?.reason == "the file has format 2, this program knows 1" && error?.remedy.contains("a later one") == true)
        for index in state.entries.indices where state.entries[index].name != StateSectionName.ram {
            var entries = state.entries
            entries[index].version += 1
            let file = try Self.file(Self.sealed(whole, header: state.header, entries: entries))
            let error = #expect(throws: MachineStateError.self) { _ = try sample.machine.openState(file.rawValue) }
            #expect(error?.section == entries[index].name && error?.reason.contains("this program knows up to") == true, "\(String(describing: error))")
        }
    }

    @Test func stateOfAnotherMachineIsRefusedWithWhatIsDifferent() throws {
        let sample = try Sample(.q35)
        let saved = try sample.save()
        func refusal(_ type: MachineType = .q35, _ change: (inout GuestConfiguration) throws -> Void = { _ in }) throws -> String {
            let other = try Sample(type, change)
            let error = #expect(throws: MachineStateError.self) { _ = try other.machine.openState(saved.rawValue) }
            return error?.description ?? ""
        }
        #expect(try refusal(.pc).contains("saved with type q35-1.0, this machine has type pc-1.0"))
        #expect(try refusal { $0.memoryMiB = 3 }.contains("saved with 2 MiB of RAM, this machine has 3 MiB"))
        #expect(try refusal { $0.cpu = CPUConfiguration(count: 2) }.contains("1 sockets of 2 cores"))
        #expect(try refusal { $0.balloon = false }.contains("section virtio-balloon: this machine has no such device"))
        #expect(try refusal { $0.disks.removeLast(2) }.contains("section ahci"))
        #expect(try refusal { $0.rng = false }.contains("section virtio-rng"))
        let more = try refusal { $0.disks.append(DiskConfiguration(id: "more", fd: Int(try makeMemoryFile(named: "more", byteCount: 4096).release()))) }
        #expect(more.contains("section virtio-blk-5: the saved machine had no such device"), "\(more)")
    }

    @Test func nodesAreTheSavedMachinesAndTheirMemoryMayComeFromElsewhere() throws {
        func nodes(_ second: [Int] = [1], host: Int? = nil, distance: Int = 25) -> NUMAConfiguration {
            let first = NUMAConfiguration.Node(cpus: [0, 1].filter { !second.contains($0) }, memoryMiB: 1, hostNode: host)
            return NUMAConfiguration(
                nodes: [first, NUMAConfiguration.Node(cpus: second, memoryMiB: 1)], distances: [NUMAConfiguration.Distance(from: 0, to: 1, value: distance)])
        }
        let sample = try Sample(.q35) { $0.numa = nodes() }
        try sample.use()
        let saved = try sample.save()
        #expect(try StateFile(reading: saved.rawValue).facts.nodes.map(\.distances) == [[10, 25], [25, 10]])
        let host = HostNodes.usable.first
        let other = try Sample(.q35) { $0.numa = nodes(host: host) }
        try other.restore(saved.rawValue)
        try other.expectUsed()
        for numa in [nil, nodes([0]), nodes(distance: 26)] {
            let stranger = try Sample(.q35) { $0.numa = numa }
            let error = #expect(throws: MachineStateError.self) { _ = try stranger.machine.openState(saved.rawValue) }
            #expect(error?.description.contains("saved with 2 nodes: 1 MiB, vCPUs 0x1, distances 10 25; 1 MiB, vCPUs 0x2") == true, "\(String(describing: error))")
        }
        let plain = try Sample(.q35).save()
        let error = #expect(throws: MachineStateError.self) { _ = try sample.machine.openState(plain.rawValue) }
        #expect(error?.description.contains("saved with no nodes") == true)
    }

    @Test func diskThatShrankIsRefusedByItsDeviceAndTheMachineDoesNotGoOn() throws {
        let sample = try Sample(.direct)
        let saved = try sample.save()
        let other = try Sample(.direct) { ftruncate(CInt($0.disks[0].fd), 4096) }
        let state = try other.machine.openState(saved.rawValue)
        try other.driver.replaceState { try other.machine.restore(state, isFresh: true, began: 1) }
        #expect(other.driver.state == .internalError)
        #expect(other.driver.breakdown?.contains("section virtio-blk-0: the disk had 2048 sectors and has 8 now") == true, "\(other.driver.breakdown ?? "")")
        #expect(throws: RequestRefusal.self) { try other.driver.perform(.resume) }
    }

    /// Right checksums around wrong contents: refused or taken, and never a trap.
    @Test func twoThousandForgedSectionsDoNotTrap() throws {
        var random = Numbers(state: 0x5A7E)
        let sample = try Sample(.pc)
        try sample.use()
        let saved = try sample.save()
        let whole = try Self.bytes(saved.rawValue), state = try StateFile(reading: saved.rawValue)
        let target = try Sample(.pc)
        for _ in 0..<2000 {
            var bytes = whole, entries = state.entries
            let index = Int.random(in: 0..<entries.count, using: &random), entry = entries[index]
            if entry.name == StateSectionName.ram || Int.random(in: 0..<8, using: &random) == 0 {
                entries[index].offset = UInt64.random(in: 0...(.max), using: &random) >> UInt64.random(in: 0...63, using: &random)
                entries[index].byteCount = UInt64.random(in: 0...(.max), using: &random) >> UInt64.random(in: 0...63, using: &random)
            } else if entry.byteCount > 0 {
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    bytes[Int(entry.offset) + Int.random(in: 0..<Int(entry.byteCount), using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
                entries[index].checksum = Checksum.of(Array(bytes[Int(entry.offset)..<Int(entry.offset + entry.byteCount)]))
            }
            let file = try Self.file(Self.sealed(bytes, header: state.header, entries: entries))
            guard let forged = try? target.machine.openState(file.rawValue) else { continue }
            try? target.machine.restore(forged, isFresh: false, began: 1)
        }
        try target.restore(saved.rawValue)
        try target.expectUsed()
    }

    // MARK: Files of released versions

    /// APUS_WRITE_SAVED_STATES=1 makes the files of this version, once; they are never written again.
    @Test(.enabled(if: getenv("APUS_WRITE_SAVED_STATES") != nil, "makes the files that are kept"), arguments: MachineType.allCases)
    func writeTheFilesOfThisVersion(type: MachineType) throws {
        let path = "\(Self.directory)/\(type.rawValue)-format-\(StateHeader.formatVersion).state"
        let number = open(path, O_CREAT | O_EXCL | O_RDWR, 0o644)
        try #require(number >= 0, "\(path): \(errorName(errno))")
        let file = OwnedDescriptor(owning: number)
        let sample = try Sample(type)
        try sample.use()
        _ = try sample.machine.collectState().write(to: file.rawValue)
    }

    @Test(arguments: MachineType.allCases)
    func fileOfEveryReleasedVersionIsRestored(type: MachineType) throws {
        for version in 1...Int(StateHeader.formatVersion) {
            let path = "\(Self.directory)/\(type.rawValue)-format-\(version).state"
            let number = open(path, O_RDONLY)
            try #require(number >= 0, "\(path): \(errorName(errno))")
            let file = OwnedDescriptor(owning: number)
            try StateFile(reading: file.rawValue).verify()
            let sample = try Sample(type)
            try sample.restore(file.rawValue)
            try sample.expectUsed()
            try sample.driver.perform(.resume)
        }
    }
}
