// What the host's work is done with; `nova-compute` puts it together once.
package import ComputeDriver
package import Logging
package import Placement
package import ServiceConfiguration

package struct HostParts: Sendable {
    package var conductor: Conductor
    package var driver: any ComputeDriver
    package var placement: any PlacementAPI
    package var configuration: Configuration
    package var news: SchedulerNews
    package var health: HostHealth
    package var names: GuestNames
    package var logger: Logger

    package init(
        conductor: Conductor, driver: any ComputeDriver, placement: any PlacementAPI, configuration: Configuration,
        news: SchedulerNews, health: HostHealth, names: GuestNames,
        logger: Logger
    ) {
        self.conductor = conductor
        self.driver = driver
        self.placement = placement
        self.configuration = configuration
        self.news = news
        self.health = health
        self.names = names
        self.logger = logger
    }
}
