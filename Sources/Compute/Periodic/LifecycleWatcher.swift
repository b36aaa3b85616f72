// What machines did by themselves (a guest that shut down, a monitor that died), brought to the record of the instance.
// An event may be old when its turn comes, so it only counts where the machine, asked again, is still in that state
// (contract §5.7).
package import ComputeDriver
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import ServiceLifecycle

package struct LifecycleWatcher: ServiceLifecycle.Service {
    private let parts: HostParts
    private let instances: any InstanceStartup

    package init(parts: HostParts, instances: any InstanceStartup) {
        self.parts = parts
        self.instances = instances
    }

    package func run() async throws {
        guard parts.configuration.compute.usesLifecycleEvents else {
            try await gracefulShutdown()
            return
        }
        await withDiscardingTaskGroup { group in
            for await event in parts.driver.events.cancelOnGracefulShutdown() {
                group.addTask { await report(event) }
            }
        }
    }

    package func report(_ event: LifecycleEvent) async {
        let (uuid, state): (String, PowerState) =
            switch event {
            case .started(let uuid), .resumed(let uuid): (uuid, .running)
            case .stopped(let uuid): (uuid, .shutdown)
            case .paused(let uuid): (uuid, .paused)
            case .crashed(let uuid): (uuid, .crashed)
            }
        let context = RequestContext.administrator()
        do {
            guard let instance = try await parts.conductor.instanceRecord(uuid, context: context),
                instance.host == parts.configuration.host, instance.taskState == nil,
                try await parts.driver.presentState(of: uuid) == state
            else { return }
            parts.logger.info("machine changed by itself", metadata: ["instance": "\(uuid)", "state": "\(state)"])
            await instances.powerStateChanged(instance, to: state, context: context)
        } catch {
            // The periodic comparison finds it again.
            parts.logger.warning("lifecycle event not reported", error: error, metadata: ["instance": "\(uuid)"])
        }
    }
}
