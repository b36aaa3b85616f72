// The names operators know guests by ("instance-0000002a"), which metrics carry as `domain`.
import NovaObjects
import Synchronization

/// Filled from what passes through the tracker anyway; a guest it has not seen has no name yet.
package final class GuestNames: Sendable {
    private let names = Mutex<[String: String]>([:])
    private let name: @Sendable (Int) -> String

    /// - Parameter name: `instance_name_template` with an instance's id.
    package init(_ name: @escaping @Sendable (Int) -> String) { self.name = name }

    package subscript(instanceUUID: String) -> String? { names.withLock { $0[instanceUUID] } }

    func replace(with instances: [Instance]) {
        let all = instances.compactMap { instance in instance.id.map { (instance.uuid, name($0)) } }
        names.withLock { $0 = Dictionary(all, uniquingKeysWith: { first, _ in first }) }
    }

    func add(_ instance: Instance) {
        guard let id = instance.id else { return }
        names.withLock { $0[instance.uuid] = name(id) }
    }
}
