// Versions of the metadata, by the release of OpenStack that brought each, and the version of EC2's that a config drive has.

enum MetadataVersion: String, CaseIterable, Comparable {
    case folsom = "2012-08-10"
    case grizzly = "2013-04-04"
    case havana = "2013-10-17"
    case liberty = "2015-10-15"
    case newtonOne = "2016-06-30"
    case newtonTwo = "2016-10-06"
    case ocata = "2017-02-22"
    case rocky = "2018-08-27"
    case victoria = "2020-10-14"

    /// Folders of a config drive under "openstack", with the version each holds.
    static var folders: [(name: String, version: MetadataVersion)] {
        allCases.map { ($0.rawValue, $0) } + [("latest", .victoria)]
    }

    static func < (left: MetadataVersion, right: MetadataVersion) -> Bool { left.rawValue < right.rawValue }

    /// Folders under "ec2": the older ones are in `[api] config_drive_skip_versions` by default.
    static let ec2Folders = ["2009-04-04", "latest"]
}
