// What each command of the control socket does to the machine. On the driver's thread.
import Glibc
package import HostSystem
package import JSON
import MachineConfiguration
package import MonitorProtocol
import VirtIO

package final class MachineCommands {
    private let machine: GuestMachine
    private let driver: StateDriver
    private let log: ConsoleOutput?
    private let begin: UInt64
    private let loop: EventLoop
    private let memory = ResidentMemory()
    /// The save that is being written.
    private var saving: SaveTask?

    /// - Parameters:
    ///   - log: where the console goes; nil: nowhere that could be read.
    ///   - begin: CLOCK_MONOTONIC when the monitor began.
    ///   - loop: the driver's.
    package init(_ machine: GuestMachine, driver: StateDriver, log: ConsoleOutput?, begin: UInt64, loop: EventLoop) {
        self.machine = machine
        self.driver = driver
        self.log = log
        self.begin = begin
        self.loop = loop
    }

    /// Nil: the answer comes later, by `answer`.
    package func perform(
        _ command: MonitorCommand, for client: ControlClient, later answer: @escaping (Result<JSONValue, MonitorRefusal>) -> Void
    ) -> Result<JSONValue, MonitorRefusal>? {
        do throws(MonitorRefusal) {
            if case .save(let name) = command {
                try save(to: try file(name, client), later: answer)
                return nil
            }
            return .success(try result(of: command, for: client))
        } catch {
            return .failure(error)
        }
    }

    private func result(of command: MonitorCommand, for client: ControlClient) throws(MonitorRefusal) -> JSONValue {
        switch command {
        case .qmpCapabilities: return [:]
        case .status: return status.json
        case .stats: return machine.statistics(residentKiB: memory.kibibytes()).json
        case .pause: return try drive(.pause)
        case .resume: return try drive(.resume)
        case .powerButton: return try drive(.pressPowerButton)
        case .reset: return try drive(.reset)
        case .nmi: return try injectNMI()
        case .quit: return try drive(.quit)
        case .console(let bytes):
            guard let tail = log?.tail(bytes) else { throw MonitorRefusal(.deviceNotFound, "the console has no log") }
            return ConsoleTail(bytes: tail).json
        case .balloon(let target): return try setBalloon(target)
        case .getfd(let name):
            guard client.keepDescriptor(as: name) else {
                throw MonitorRefusal(.genericError, "no descriptor came with this line")
            }
            return [:]
        case .closefd(let name):
            guard client.closeDescriptor(named: name) else {
                throw MonitorRefusal(.genericError, "no descriptor has this name")
            }
            return [:]
        case .restore(let name): return try restore(from: try file(name, client))
        // `perform` has it: its answer comes later.
        case .save: return [:]
        }
    }

    package var status: MachineStatus {
        MachineStatus(
            state: driver.state, reason: driver.state == .internalError ? driver.breakdown : driver.shutdownReason,
            name: machine.configuration.name, uuid: machine.configuration.uuid.description, pid: Int(getpid()),
            uptimeNanoseconds: Int(clamping: SystemClock.monotonicNanoseconds &- begin),
            restoreNanoseconds: machine.restoreNanoseconds.map { Int(clamping: $0) })
    }

    private func drive(_ request: MachineRequest) throws(MonitorRefusal) -> JSONValue {
        do throws(RequestRefusal) {
            try driver.perform(request)
        } catch {
            throw MonitorRefusal(.stateNotAllowed, "\(error)")
        }
        // A machine that could not follow says so in its state, and here.
        if driver.state == .internalError, request != .quit, let reason = driver.breakdown {
            throw MonitorRefusal(.genericError, reason)
        }
        return [:]
    }

    private func injectNMI() throws(MonitorRefusal) -> JSONValue {
        guard driver.state == .running else {
            throw MonitorRefusal(.stateNotAllowed, "the machine is in state \(driver.state.rawValue): an NMI needs one that runs")
        }
        do { try machine.injectNMI() } catch { throw MonitorRefusal(.genericError, "\(error)") }
        return [:]
    }

    private func setBalloon(_ targetMiB: Int) throws(MonitorRefusal) -> JSONValue {
        guard let balloon = machine.board.balloon else {
            throw MonitorRefusal(.deviceNotFound, "this machine has no balloon")
        }
        let all = machine.configuration.memoryMiB
        guard targetMiB <= all else { throw MonitorRefusal(.genericError, "\(targetMiB) MiB of \(all)") }
        balloon.setTarget(pages: UInt32(clamping: (all - targetMiB) * 256))
        return [:]
    }

    // MARK: Saved state

    private func file(_ name: String, _ client: ControlClient) throws(MonitorRefusal) -> CInt {
        guard let number = client.descriptor(named: name) else {
            throw MonitorRefusal(.genericError, "no descriptor has this name")
        }
        return number
    }

    /// Stops the machine and begins to write it down; it stays paused, and may be resumed, or quit, once the answer has come.
    private func save(to number: CInt, later answer: @escaping (Result<JSONValue, MonitorRefusal>) -> Void) throws(MonitorRefusal) {
        let begin = SystemClock.monotonicNanoseconds
        guard saving == nil else { throw MonitorRefusal(.stateNotAllowed, "the machine is being saved already") }
        do { try StateFileWriter.check(number, for: machine.board.memory) } catch { throw MonitorRefusal(.genericError, "\(error)") }
        _ = try drive(.pause)
        // What the guest asked for before it was stopped is done first: no processor is left to ask for more.
        driver.serveGuestRequests()
        guard driver.state == .paused else {
            throw MonitorRefusal(.stateNotAllowed, "the guest left: the machine is in state \(driver.state.rawValue)")
        }
        do {
            let writer = try machine.collectState()
            let copy = fcntl(number, F_DUPFD_CLOEXEC, 0)
            guard copy >= 0 else { throw HostError("keep", subject: "the descriptor of the saved state", errno: errno) }
            let asker = Asker(commands: self, answer: answer)
            saving = try SaveTask(
                writer, to: OwnedDescriptor(owning: copy), began: begin, on: loop,
                synchronise: { [board = machine.board] in try board.synchroniseImages() },
                finish: { outcome in
                    asker.commands.saving = nil
                    asker.commands.driver.hold = nil
                    asker.answer(outcome.map { $0.json })
                })
            driver.hold = "it is being saved"
        } catch {
            throw MonitorRefusal(.genericError, "\(error); the machine stays paused")
        }
    }

    /// Who waits for a save. @unchecked: it only passes through the saving thread's hands, and is used on the driver's.
    private struct Asker: @unchecked Sendable {
        let commands: MachineCommands
        let answer: (Result<JSONValue, MonitorRefusal>) -> Void
    }

    /// Before the machine's memory and disks go: a save that is not finished is called off.
    package func abandonSave() {
        saving?.abandon()
        saving = nil
    }

    /// Puts a saved state in the place of the paused machine's. One that does not fit changes nothing.
    private func restore(from number: CInt) throws(MonitorRefusal) -> JSONValue {
        let begin = SystemClock.monotonicNanoseconds
        let state: RestorableState
        do { state = try machine.openState(number) } catch { throw MonitorRefusal(.genericError, "\(error)") }
        do throws(RequestRefusal) {
            try driver.replaceState { try machine.restore(state, isFresh: false, began: begin) }
        } catch {
            throw MonitorRefusal(.stateNotAllowed, "\(error)")
        }
        if driver.state == .internalError, let reason = driver.breakdown { throw MonitorRefusal(.genericError, reason) }
        return [:]
    }
}
