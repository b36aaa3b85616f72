// oslo.log's options that this service obeys.

package struct LoggingOptions: Sendable, Equatable {
    package var isDebug: Bool
    /// Nil: standard error.
    package var file: String?
    /// Standard error besides a file.
    package var usesStandardError: Bool
    /// For lines written on behalf of a request.
    package var contextFormat: String
    /// For other lines.
    package var defaultFormat: String
    /// Put after lines of level DEBUG.
    package var debugSuffix: String
    /// Put before the message where the line is about an instance.
    package var instanceFormat: String

    package static let defaultContextFormat =
        "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s "
        + "[%(global_request_id)s %(request_id)s %(user_identity)s] %(instance)s%(message)s"
    package static let defaultDefaultFormat =
        "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [-] %(instance)s%(message)s"

    package init(
        isDebug: Bool = false, file: String? = nil, usesStandardError: Bool = false,
        contextFormat: String = Self.defaultContextFormat, defaultFormat: String = Self.defaultDefaultFormat,
        debugSuffix: String = "", instanceFormat: String = "[instance: %(uuid)s] "
    ) {
        self.isDebug = isDebug
        self.file = file
        self.usesStandardError = usesStandardError
        self.contextFormat = contextFormat
        self.defaultFormat = defaultFormat
        self.debugSuffix = debugSuffix
        self.instanceFormat = instanceFormat
    }
}
