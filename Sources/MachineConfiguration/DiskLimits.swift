// How much a guest may ask of one disk: token buckets of bytes and operations, as libvirt's iotune and Nova's quota:disk_* name them.
package import JSON

package struct DiskLimits: Sendable, Equatable {
    /// A bucket.
    package struct Limit: Sendable, Equatable {
        /// 1 or more.
        package var perSecond: UInt64
        /// How much may be taken at once after a pause; nil: a second's worth.
        package var burst: UInt64?

        package init(perSecond: UInt64, burst: UInt64? = nil) {
            self.perSecond = perSecond
            self.burst = burst
        }
    }
    /// What is counted, of which requests; the names are the description's.
    package enum Kind: String, Sendable, CaseIterable {
        case totalBytes, readBytes, writeBytes, totalOperations, readOperations, writeOperations
    }
    /// Kinds without an entry are not limited.
    package var limits: [Kind: Limit]

    package init(_ limits: [Kind: Limit] = [:]) { self.limits = limits }

    package var isEmpty: Bool { limits.isEmpty }

    package var json: JSONValue {
        .object(
            Dictionary(
                uniqueKeysWithValues: limits.map { kind, limit in
                    var value: [String: JSONValue] = ["perSecond": .integer(Int64(clamping: limit.perSecond))]
                    if let burst = limit.burst { value["burst"] = .integer(Int64(clamping: burst)) }
                    return (kind.rawValue, .object(value))
                }))
    }

    static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> DiskLimits {
        var limits: [Kind: Limit] = [:]
        for kind in Kind.allCases {
            limits[kind] = try members.objectIfPresent(kind.rawValue) { limit throws(JSONMemberError) in
                Limit(
                    perSecond: UInt64(try limit.integer("perSecond", in: 1...maximum)),
                    burst: try limit.integerIfPresent("burst", in: 1...maximum).map { UInt64($0) })
            }
        }
        return DiskLimits(limits)
    }

    /// More is no limit.
    private static let maximum = 1 << 53
}
