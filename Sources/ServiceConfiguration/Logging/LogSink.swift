// Where log lines go: a file, standard error, or both. A file that was moved away (logrotate) is opened anew on SIGHUP.
import Foundation
import Synchronization

/// Shared by all loggers of the process. Level and file may change while it runs.
package final class LogSink: Sendable {
    // A FileHandle is written to under the lock alone.
    private struct State {
        var file: FileHandle?
        var path: String?
        var isDebug: Bool
    }
    private let state: Mutex<State>
    private let usesStandardError: Bool

    /// Opens the file; where that fails, lines go to standard error and the reason is the first of them.
    package init(_ options: LoggingOptions) {
        state = Mutex(State(file: nil, path: options.file, isDebug: options.isDebug))
        usesStandardError = options.usesStandardError || options.file == nil
        reopen()
    }

    package var isDebug: Bool {
        get { state.withLock { $0.isDebug } }
        set { state.withLock { $0.isDebug = newValue } }
    }

    /// Closes the file and opens the one that has its name now.
    package func reopen() {
        let failure: String? = state.withLock { state in
            guard let path = state.path else { return nil }
            do {
                let folder = URL(filePath: path).deletingLastPathComponent()
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
                if !FileManager.default.fileExists(atPath: path) {
                    _ = FileManager.default.createFile(
                        atPath: path, contents: nil, attributes: [.posixPermissions: 0o640])
                }
                let handle = try FileHandle(forUpdating: URL(filePath: path))
                try handle.seekToEnd()
                try? state.file?.close()
                state.file = handle
                return nil
            } catch {
                return "open log file \(path): \(error.localizedDescription) (host); logging to standard error\n"
            }
        }
        if let failure { Self.writeToStandardError(failure) }
    }

    func write(_ line: String) {
        let data = Data((line + "\n").utf8)
        let isWritten = state.withLock { state in
            guard let file = state.file else { return false }
            do {
                // Another process may have written since, or have cut the file.
                try file.seekToEnd()
                try file.write(contentsOf: data)
                return true
            } catch {
                return false
            }
        }
        if usesStandardError || !isWritten { try? FileHandle.standardError.write(contentsOf: data) }
    }

    private static func writeToStandardError(_ line: String) {
        try? FileHandle.standardError.write(contentsOf: Data(line.utf8))
    }
}
