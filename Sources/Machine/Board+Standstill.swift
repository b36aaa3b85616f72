// Stopping and starting the devices that work on their own, apart from any vCPU.

extension Board {
    /// Stops every queue and waits for what is in flight, with the vCPUs parked. The names of those that did not finish.
    package func pause() -> [String] {
        let busy = pausable.compactMap { $0.pause() ? nil : $0.stateName }
        time.stop()
        return busy
    }

    package func resume() {
        time.start()
        for device in pausable { device.resume() }
    }
}
