// What operations on instances work with; `nova-compute` puts it together once.
package import ComputeDriver
package import Glance
package import Logging
package import ServiceConfiguration
package import ServiceMetrics

/// The parts around `ComputeManager`.
package struct ComputeServices: Sendable {
    package var conductor: Conductor
    package var driver: any ComputeDriver
    package var books: any HostBooks
    package var network: any InstanceNetwork
    package var notifications: any InstanceNotifications
    package var metadata: any InstanceMetadata
    package var glance: any GlanceAPI
    package var configuration: Configuration
    package var metrics: ComputeMetrics
    package var logger: Logger

    package init(
        conductor: Conductor, driver: any ComputeDriver, books: any HostBooks, network: any InstanceNetwork,
        notifications: any InstanceNotifications, metadata: any InstanceMetadata, glance: any GlanceAPI,
        configuration: Configuration, metrics: ComputeMetrics, logger: Logger
    ) {
        self.conductor = conductor
        self.driver = driver
        self.books = books
        self.network = network
        self.notifications = notifications
        self.metadata = metadata
        self.glance = glance
        self.configuration = configuration
        self.metrics = metrics
        self.logger = logger
    }
}
