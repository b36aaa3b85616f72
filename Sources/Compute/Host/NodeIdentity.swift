// The stable identity of this host (contract §5.5): one UUID in a file `compute_id`, which is the uuid of its
// ComputeNode and of its resource provider. Placement knows a provider by both name and uuid, so a host that came back
// under another uuid could never report again. Zed's own nova-compute has no such file; the control plane takes the
// uuid a compute node is created with.
import Foundation

package struct NodeIdentity: Sendable, Equatable {
    package let uuid: String
    /// The file it is in.
    package let path: String

    static let fileName = "compute_id"
    /// Services of this version and newer have such a file.
    static let requiredFromServiceVersion = 65

    /// Reads the file beside a configuration file or in `state_path`; all that exist must agree. Nil: there is none.
    package static func read(configurationFiles: [String], statePath: String) throws(IdentityError) -> NodeIdentity? {
        var folders = configurationFiles.map { URL(filePath: $0).deletingLastPathComponent().path }
        folders.append(statePath)
        var found: NodeIdentity?
        for folder in folders {
            let path = folder + "/" + fileName
            guard FileManager.default.fileExists(atPath: path) else { continue }
            guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
                throw IdentityError("\(path) cannot be read")
            }
            let line = text.trimmingCharacters(in: .whitespacesAndNewlines)
            guard let uuid = UUID(uuidString: line) else {
                throw IdentityError("\(path) does not hold one UUID and nothing else")
            }
            let identity = NodeIdentity(uuid: uuid.uuidString.lowercased(), path: path)
            if let found, found.uuid != identity.uuid {
                throw IdentityError("\(found.path) says \(found.uuid) and \(path) says \(identity.uuid)")
            }
            found = found ?? identity
        }
        return found
    }

    /// Writes a new file, which must not exist.
    package static func create(uuid: String, statePath: String) throws(IdentityError) -> NodeIdentity {
        let path = statePath + "/" + fileName
        do {
            try FileManager.default.createDirectory(atPath: statePath, withIntermediateDirectories: true)
            try Data((uuid.lowercased() + "\n").utf8).write(to: URL(filePath: path), options: .withoutOverwriting)
        } catch {
            throw IdentityError("\(path) cannot be written: \(error.localizedDescription)")
        }
        return NodeIdentity(uuid: uuid.lowercased(), path: path)
    }
}

/// A host that is not who the control plane takes it for. Starting would report it a second time or touch another
/// host's servers, so the service ends and is not to be restarted.
package struct IdentityError: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { "identify this host: \(reason) (host)" }
}
