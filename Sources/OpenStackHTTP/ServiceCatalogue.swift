// The catalogue in a Keystone token (Identity API v3, "catalog"): which address serves which service type.
package import JSON

package struct ServiceCatalogue: Sendable, Equatable {
    package struct Endpoint: Sendable, Equatable {
        package let serviceType: String
        package let interface: String
        package let region: String?
        package let url: String

        package init(serviceType: String, interface: String, region: String?, url: String) {
            self.serviceType = serviceType
            self.interface = interface
            self.region = region
            self.url = url
        }
    }
    package let endpoints: [Endpoint]

    package init(endpoints: [Endpoint]) { self.endpoints = endpoints }

    /// From the "catalog" member of a token; entries that lack what is needed are left out.
    package init(_ catalog: JSONValue) {
        var endpoints: [Endpoint] = []
        for service in catalog.arrayValue ?? [] {
            guard let type = service["type"]?.stringValue else { continue }
            for endpoint in service["endpoints"]?.arrayValue ?? [] {
                guard let interface = endpoint["interface"]?.stringValue, let url = endpoint["url"]?.stringValue
                else { continue }
                let region = endpoint["region_id"]?.stringValue ?? endpoint["region"]?.stringValue
                endpoints.append(Endpoint(serviceType: type, interface: interface, region: region, url: url))
            }
        }
        self.endpoints = endpoints
    }

    /// The first interface of `interfaces` that has an endpoint wins (keystoneauth's `valid_interfaces`).
    package func url(serviceType: String, interfaces: [String], region: String?) -> String? {
        for interface in interfaces {
            // Old files say "publicURL".
            let name = interface.hasSuffix("URL") ? String(interface.dropLast(3)) : interface
            let match = endpoints.first {
                $0.serviceType == serviceType && $0.interface == name && (region == nil || $0.region == region)
            }
            if let match { return match.url }
        }
        return nil
    }
}
