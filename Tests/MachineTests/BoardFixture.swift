import Chipset
import GuestMemory
import Glibc
import HostSystem
import MachineConfiguration
import MachineCore
import PCI
import Testing

@testable import Machine

/// A whole machine of any type with no processor behind it, its devices' loop on a thread of its own, driven by hand.
final class BoardFixture {
    let accelerator = FakeAccelerator()
    let output = CapturedOutput()
    let machine: GuestMachine
    let driver: StateDriver
    let notices = Monitor<[MachineNotice]>([])
    private let loop: EventLoop
    private var thread: HostSystem.Thread?

    /// - Parameter loadsKernel: the configuration's kernel is loaded; otherwise nothing is.
    init(
        _ type: MachineType, memoryMiB: Int = 16, loadsKernel: Bool = false, _ change: (inout GuestConfiguration) throws -> Void = { _ in }
    ) throws {
        loop = try EventLoop()
        var configuration = GuestConfiguration(
            name: "test", uuid: .zero, memoryMiB: memoryMiB, cpu: CPUConfiguration(count: 1), type: type, kernel: type == .direct ? -1 : nil)
        if type != .direct { configuration.firmware = FirmwareConfiguration(code: Int(try Self.file(byteCount: 128 << 10))) }
        try change(&configuration)
        let nothing: GuestMachine.Loader = { _ in BootRegisters(mode: .real, rip: 0) }
        machine = try GuestMachine(configuration, accelerator: accelerator, output: output, loop: loop, loader: loadsKernel ? nil : nothing)
        driver = StateDriver(machine, requests: machine.requests, policies: MachinePolicies(configuration)) { [notices] notice in
            notices.update { $0.append(notice) }
        }
        thread = try HostSystem.Thread(named: "io-test") { [loop] in try? loop.run() }
        try driver.perform(.pause)
    }

    deinit {
        try? driver.perform(.quit)
        loop.stop()
        if let thread = thread.take() { thread.join() }
    }

    /// A file in memory that begins with `bytes`.
    static func file(_ bytes: [UInt8] = [], byteCount: Int) throws -> CInt {
        let number = try makeMemoryFile(named: "file", byteCount: byteCount).release()
        #expect(pwrite(number, bytes, bytes.count, 0) == bytes.count)
        return number
    }

    var board: Board { machine.board }

    func read(_ port: UInt16, _ width: AccessWidth = .byte) -> UInt64 { board.ports.read(port, width: width) }
    func write(_ port: UInt16, _ value: UInt64, _ width: AccessWidth = .byte) { board.ports.write(port, width: width, value: value) }
    func readMemory(_ address: UInt64, _ byteCount: Int = 4) -> UInt64 { board.addresses.read(GuestAddress(address), byteCount: byteCount) }
    func writeMemory(_ address: UInt64, _ value: UInt64, _ byteCount: Int = 4) {
        board.addresses.write(GuestAddress(address), byteCount: byteCount, value: value)
    }

    private func select(_ address: PCIAddress, _ offset: Int) {
        write(0xCF8, 0x8000_0000 | UInt64(address.routingID) << 8 | UInt64(offset & 0xFC), .doubleWord)
    }
    func configuration(_ address: PCIAddress, _ offset: Int, _ width: AccessWidth = .doubleWord) -> UInt64 {
        select(address, offset)
        return read(0xCFC + UInt16(offset & 3), width)
    }
    func configure(_ address: PCIAddress, _ offset: Int, _ value: UInt64, _ width: AccessWidth = .doubleWord) {
        select(address, offset)
        write(0xCFC + UInt16(offset & 3), value, width)
    }
    /// The functions with this identity (device << 16 | vendor).
    func functions(_ identity: UInt64) -> [PCIAddress] { board.bus.all.map(\.address).filter { configuration($0, 0) == identity } }

    /// Puts the power management block where SeaBIOS does; nothing where it is always.
    func placePowerManagement(_ type: MachineType) {
        switch type {
        case .direct: break
        case .pc:
            configure(PCIAddress(device: 1, function: 3), 0x40, 0x600)
            configure(PCIAddress(device: 1, function: 3), 0x80, 1, .byte)
        case .q35:
            configure(PCIAddress(device: 0x1F), 0x40, 0x600)
            configure(PCIAddress(device: 0x1F), 0x44, 0x80, .byte)
        }
    }

    /// A file of fw_cfg, read a byte at a time.
    func firmwareFile(_ name: String) -> [UInt8]? {
        guard let (key, count) = firmwareDirectory[name] else { return nil }
        write(0x510, UInt64(key), .word)
        return (0..<count).map { _ in UInt8(read(0x511)) }
    }
    /// Number and length by name.
    var firmwareDirectory: [String: (key: UInt16, byteCount: Int)] {
        write(0x510, 0x19, .word)
        func big(_ count: Int) -> Int { (0..<count).reduce(0) { value, _ in value << 8 | Int(read(0x511)) } }
        var entries: [String: (UInt16, Int)] = [:]
        for _ in 0..<big(4) {
            let byteCount = big(4), key = big(4) >> 16
            let name = (0..<56).map { _ in UInt8(read(0x511)) }.prefix { $0 != 0 }
            entries[String(decoding: name, as: UTF8.self)] = (UInt16(key), byteCount)
        }
        return entries
    }
}

extension GuestMachine {
    /// The whole machine in a file.
    func saveState() throws -> OwnedDescriptor {
        let file = try makeMemoryFile(named: "state", byteCount: 0)
        _ = try collectState().write(to: file.rawValue)
        return file
    }

    func restoreState(_ file: borrowing OwnedDescriptor) throws {
        try restore(try openState(file.rawValue), isFresh: true, began: SystemClock.monotonicNanoseconds)
    }
}
