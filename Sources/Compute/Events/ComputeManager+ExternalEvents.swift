// external_instance_event (RPC reference §5.13). Beside the runners: the build that waits for its ports holds its instance's.
import JSON
import Logging
import NovaObjects
import OsloMessaging

extension ComputeManager {
    /// Each event for itself: one that fails is logged and does not keep the others back.
    func externalInstanceEvent(
        _ instances: [Instance], _ events: [InstanceExternalEvent], context: RequestContext
    ) async {
        for event in events {
            guard let instance = instances.first(where: { $0.uuid == event.instanceUUID }) else {
                logger(context).warning("event \(event.key) for an instance that did not come along")
                continue
            }
            await deliver(event, to: instance, context: context)
        }
    }

    private func deliver(_ event: InstanceExternalEvent, to instance: Instance, context: RequestContext) async {
        var logger = logger(context, instance: instance.uuid)
        logger[metadataKey: "event"] = .string(event.key)
        do {
            switch event.name {
            case "network-vif-plugged", "network-vif-unplugged", "accelerator-request-bound", "volume-reimaged":
                if externalEvents.deliver(event) {
                    logger.debug("received the expected event", metadata: ["status": "\(event.status)"])
                } else if event.name == "network-vif-unplugged" || instance.taskState == "deleting" {
                    logger.debug("received an event that nobody waits for")
                } else {
                    // After each start of a guest Neutron tells again that the port is there.
                    logger.info("received an event that nobody waits for")
                }
            case "network-changed":
                try await services.network.refresh(instance, portID: event.tag, context: context)
            case "network-vif-deleted":
                guard let portID = event.tag else { return logger.warning("an event without the port it is about") }
                if try await services.network.forget(portID: portID, of: instance, context: context) != nil {
                    logger.info("port \(portID) was deleted; the guest keeps the interface until its next start")
                }
            default:
                logger.warning("received an event that this service does not know")
            }
        } catch where NovaException.isClass("InstanceNotFound", error)
            || NovaException.isClass("InstanceInfoCacheNotFound", error) {
            logger.debug("the instance is gone")
        } catch {
            logger.warning("the event could not be carried out", metadata: ["error": "\(error)"])
        }
    }
}
