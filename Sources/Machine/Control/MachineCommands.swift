// What each command of the control socket does to the machine. On the driver's thread.
import Glibc
import HostSystem
package import JSON
import MachineConfiguration
package import MonitorProtocol
import VirtIO

package final class MachineCommands {
    private let machine: GuestMachine
    private let driver: StateDriver
    private let log: ConsoleOutput?
    private let begin: UInt64
    private let memory = ResidentMemory()

    /// - Parameters:
    ///   - log: where the console goes; nil: nowhere that could be read.
    ///   - begin: CLOCK_MONOTONIC when the monitor began.
    package init(_ machine: GuestMachine, driver: StateDriver, log: ConsoleOutput?, begin: UInt64) {
        self.machine = machine
        self.driver = driver
        self.log = log
        self.begin = begin
    }

    package func perform(_ command: MonitorCommand, for client: ControlClient) -> Result<JSONValue, MonitorRefusal> {
        do throws(MonitorRefusal) {
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
        case .save(let name): return try save(to: try file(name, client))
        case .restore(let name): return try restore(from: try file(name, client))
        }
    }

    package var status: MachineStatus {
        MachineStatus(
            state: driver.state, reason: driver.state == .internalError ? driver.breakdown : driver.shutdownReason,
            name: machine.configuration.name, uuid: machine.configuration.uuid.description, pid: Int(getpid()),
            uptimeNanoseconds: Int(clamping: SystemClock.monotonicNanoseconds &- begin))
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
        guard driver.state == .paused else {
            throw MonitorRefusal(.stateNotAllowed, "the machine is in state \(driver.state.rawValue): pause it first")
        }
        guard let number = client.descriptor(named: name) else {
            throw MonitorRefusal(.genericError, "no descriptor has this name")
        }
        var status = stat()
        // SAFETY: fills a local. Anything but a file could make the machine's driver wait.
        guard unsafe fstat(number, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw MonitorRefusal(.genericError, "the descriptor is no regular file")
        }
        return number
    }

    private func save(to number: CInt) throws(MonitorRefusal) -> JSONValue {
        let bytes: [UInt8]
        do { bytes = try machine.saveState() } catch { throw MonitorRefusal(.genericError, "\(error)") }
        guard ftruncate(number, 0) == 0 else {
            throw MonitorRefusal(.genericError, "empty the file: \(errorName(errno))")
        }
        var written = 0
        while written < bytes.count {
            // SAFETY: reads the rest of the array.
            let done = unsafe bytes.withUnsafeBytes {
                unsafe pwrite(number, $0.baseAddress.map { unsafe $0 + written }, $0.count - written, off_t(written))
            }
            if done < 0, errno == EINTR { continue }
            guard done > 0 else { throw MonitorRefusal(.genericError, "write the state: \(errorName(errno))") }
            written += done
        }
        return ["bytes": .integer(Int64(written))]
    }

    private func restore(from number: CInt) throws(MonitorRefusal) -> JSONValue {
        let count = lseek(number, 0, SEEK_END)
        guard count > 0, count <= 64 << 20 else {
            throw MonitorRefusal(.genericError, "\(count) bytes are no saved state")
        }
        var bytes = [UInt8](repeating: 0, count: Int(count))
        // SAFETY: fills at most the array's own length.
        guard unsafe pread(number, &bytes, bytes.count, 0) == bytes.count else {
            throw MonitorRefusal(.genericError, "read the state: \(errorName(errno))")
        }
        do { try machine.restoreState(bytes) } catch { throw MonitorRefusal(.genericError, "\(error)") }
        return [:]
    }
}
