// A configuration reaches logs by accident: as part of something that is printed. What holds a secret therefore prints without it,
// however it is printed.

/// Prints what `description` says, nothing of its members.
package protocol PrintsWithoutSecrets: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {}

extension PrintsWithoutSecrets {
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: ["description": description]) }
}

extension Configuration: PrintsWithoutSecrets {
    package var description: String { "configuration of host \(host)" }
}

extension MessagingOptions: PrintsWithoutSecrets {
    package var description: String { EffectiveOption.withoutPasswords(transportURL) }
}

extension NotificationOptions: PrintsWithoutSecrets {
    package var description: String { "notifications by \(drivers.joined(separator: ", "))" }
}

extension ServiceClientOptions: PrintsWithoutSecrets {
    package var description: String { "\(serviceType) as \(username ?? userID ?? "-") at \(authURL ?? "-")" }
}
