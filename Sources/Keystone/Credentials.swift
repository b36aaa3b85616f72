// The identity of one configuration section ([placement], [neutron], [service_user], …): keystoneauth's `password` type.

package struct Credentials: Sendable, Equatable {
    /// With or without "/v3".
    package var authURL: String
    package var username: String?
    package var userID: String?
    package var password: String
    package var userDomainName: String?
    package var userDomainID: String?
    package var projectName: String?
    package var projectID: String?
    package var projectDomainName: String?
    package var projectDomainID: String?

    package init(
        authURL: String, username: String? = nil, userID: String? = nil, password: String,
        userDomainName: String? = nil, userDomainID: String? = nil, projectName: String? = nil,
        projectID: String? = nil, projectDomainName: String? = nil, projectDomainID: String? = nil
    ) {
        self.authURL = authURL
        self.username = username
        self.userID = userID
        self.password = password
        self.userDomainName = userDomainName
        self.userDomainID = userDomainID
        self.projectName = projectName
        self.projectID = projectID
        self.projectDomainName = projectDomainName
        self.projectDomainID = projectDomainID
    }
}

extension Credentials: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// Without the password, however it is printed.
    package var description: String {
        "user \(username ?? userID ?? "-") of project \(projectName ?? projectID ?? "-") at \(authURL)"
    }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: ["description": description]) }
}
