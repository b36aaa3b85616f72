// Which files a configuration is read from (operations §1.1): those named on the command line, or the first nova.conf and
// the first nova-compute.conf of the search path; after them the files of the configuration directories, which win.
import Foundation

/// Paths of configuration files in the order they are read; the later wins.
package struct ConfigurationFiles: Sendable, Equatable {
    package let paths: [String]

    package init(paths: [String]) { self.paths = paths }

    /// `files` and `directories` are what the command line named; empty: search.
    package init(
        files: [String], directories: [String], environment: [String: String] = ProcessInfo.processInfo.environment,
        project: String = "nova", program: String = "nova-compute"
    ) {
        let search = Self.searchPath(environment: environment, project: project)
        var paths = files
        if files.isEmpty {
            for name in ["\(project).conf", "\(program).conf"] {
                if let path = Self.first(name, in: search, isDirectory: false) { paths.append(path) }
            }
        }
        var folders = directories
        if directories.isEmpty {
            for name in ["\(project).conf.d", "\(program).conf.d"] {
                if let path = Self.first(name, in: search, isDirectory: true) { folders.append(path) }
            }
        }
        for folder in folders {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            paths += names.filter { $0.hasSuffix(".conf") && !$0.hasPrefix(".") }.sorted().map { "\(folder)/\($0)" }
        }
        self.paths = paths
    }

    private static func searchPath(environment: [String: String], project: String) -> [String] {
        var folders: [String] = []
        if let home = environment["HOME"] { folders += ["\(home)/.\(project)", home] }
        folders += ["/etc/\(project)", "/etc"]
        for name in ["SNAP_COMMON", "SNAP"] {
            if let base = environment[name] { folders += ["\(base)/etc/\(project)"] }
        }
        return folders
    }

    private static func first(_ name: String, in folders: [String], isDirectory: Bool) -> String? {
        for folder in folders {
            let path = "\(folder)/\(name)"
            // The URL resource keys avoid a C pointer for "is a directory".
            let values = try? URL(filePath: path).resolvingSymlinksInPath().resourceValues(forKeys: [
                .isDirectoryKey
            ])
            if let found = values?.isDirectory, found == isDirectory { return path }
        }
        return nil
    }
}
