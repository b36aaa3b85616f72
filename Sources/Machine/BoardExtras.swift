// Devices that a board has only where its description names them: HPET, watchdog, panic port, generation id, debug ports.
import Chipset
import Firmware
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import PCI

/// Made before the board's fixed devices, because the HPET takes the RTC's interrupt away.
struct BoardExtras {
    let hpet: EventTimerBlock?
    let generation: GenerationPage?
    /// The RTC's interrupt.
    let clockLine: any InterruptLine
    private(set) var watchdog: (endpoint: PCIEndpoint, timer: WatchdogTimer)?
    private let configuration: BoardConfiguration

    init(
        _ configuration: GuestConfiguration, machine: any VirtualMachine, memory: GuestMemory, chipset: BoardChipset, power: PowerManagement,
        clock: BoardClock, loop: EventLoop
    ) throws {
        self.configuration = configuration.board
        let clockInput = GSILine(machine, gsi: 8)
        if configuration.board.hpet {
            let shared = SharedInput(clockInput), clockLine = SwitchedLine(shared.makeSource())
            self.clockLine = clockLine
            hpet = Self.makeHPET(machine, chipset, clock, try clock.makeTimer(on: loop), clockInput: shared) { isReplacing in
                clockLine.setConnected(!isReplacing)
                // A host that refuses leaves the guest with ticks of both; there is no one to tell.
                try? machine.setTimerInterrupt(isConnected: !isReplacing)
            }
        } else {
            (hpet, clockLine) = (nil, clockInput)
        }
        let hasFirmware = configuration.type != .direct
        generation = configuration.board.generationID.map {
            GenerationPage($0, memory: memory, power: power, address: hasFirmware ? nil : GuestAddress(MemoryMap.generationPage))
        }
    }

    /// Input 2 of the I/O APIC is the one that interrupt 0 reaches, and 8 the RTC's, both shared; 16 to 23 are those of PCI slots.
    private static func makeHPET(
        _ machine: any VirtualMachine, _ chipset: BoardChipset, _ clock: any MachineClock, _ timer: any DeadlineTimer, clockInput: SharedInput,
        onLegacyReplacement: @escaping @Sendable (Bool) -> Void
    ) -> EventTimerBlock {
        let timerInput = SharedInput(GSILine(machine, gsi: 0))
        var lines: [HPET.Route: any InterruptLine] = [
            .legacy(0): timerInput.makeSource(), .pin(2): timerInput.makeSource(), .legacy(8): clockInput.makeSource(), .pin(8): clockInput.makeSource(),
        ]
        let routes = chipset.timerRoutes
        for pin in UInt8(16)..<24 where routes >> UInt32(pin) & 1 != 0 { lines[.pin(pin)] = chipset.line(input: pin, of: machine) }
        let hpet = EventTimerBlock(clock: clock, timer: timer, routes: routes) { [lines] route in lines[route] }
        hpet.onLegacyReplacement(onLegacyReplacement)
        return hpet
    }

    /// The watchdog's slot comes after all others, so that it moves none of them.
    mutating func attachWatchdog(_ wiring: SlotWiring, clock: BoardClock, loop: EventLoop, requests: GuestRequests, in slots: inout SlotPlan) throws {
        guard configuration.watchdog != nil else { return }
        let slot = slots.take()
        let endpoint = try WatchdogTimer.makeEndpoint(name: "i6300esb-pci", line: wiring.chipset.line(device: slot))
        let timer = WatchdogTimer(clock: clock, timer: try clock.makeTimer(on: loop), line: WatchdogTimer.line(of: endpoint)) { expiry in
            // There is no system management mode that could take an SMI.
            if expiry == .reset { requests.post(.watchdogExpired) }
        }
        timer.connect(to: endpoint)
        try wiring.bus.attach(endpoint, at: PCIAddress(device: slot))
        watchdog = (endpoint, timer)
    }

    /// The logs that were made.
    func attach(to ports: inout PortBus, addresses: MemoryBus, requests: GuestRequests, loop: EventLoop) throws -> [ConsoleOutput] {
        var logs: [ConsoleOutput] = []
        if let hpet { addresses.attach(hpet, at: GuestAddress(EventTimerBlock.baseAddress), byteCount: HPET.byteCount) }
        if configuration.panic {
            ports.attach(PanicPort { events in requests.post(events) }, at: 0x505, count: 1)
        }
        if let number = configuration.debugConsole {
            let sink = try ConsoleOutput(owning: OwnedDescriptor(owning: CInt(number)), on: loop)
            ports.attach(DebugConsole(output: sink), at: 0xE9, count: 1)
            logs.append(sink)
        }
        if configuration.debugExit {
            ports.attach(DebugExit { code in requests.post(.guestExit(status: UInt8(truncatingIfNeeded: code))) }, at: 0xF4, count: 4)
        }
        return logs
    }

    var savable: [any SavableDevice & Sendable] {
        var devices: [any SavableDevice & Sendable] = []
        if let hpet { devices.append(hpet) }
        if let watchdog { devices += [watchdog.endpoint, watchdog.timer] as [any SavableDevice & Sendable] }
        if let generation { devices.append(generation.identifier) }
        return devices
    }

    func describe(_ description: inout ACPIDescription) {
        description.hasHPET = configuration.hpet
        description.hasPanicPort = configuration.panic
        description.hasGenerationID = configuration.generationID != nil
    }
}

extension GuestRequests {
    fileprivate func post(_ events: PanicEvents) {
        if events.contains(.crashLoaded) { post(.guestCrashLoaded) }
        if events.contains(.panicked) { post(.guestCrash(reason: "the guest's kernel panicked")) }
        if events.contains(.shutdown) { post(.guestShutdown) }
    }
}
