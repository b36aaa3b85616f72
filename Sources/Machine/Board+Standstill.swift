// Stopping and starting the devices that work on their own, apart from any vCPU.
import PCI
import VirtIO

extension Board {
    private var functions: [VirtIOPCIFunction] { bus.all.compactMap { $0.function as? VirtIOPCIFunction } }

    /// Stops every queue and waits for what is in flight, with the vCPUs parked. The names of those that did not finish.
    package func pause() -> [String] {
        functions.compactMap { $0.pause() ? nil : $0.stateName }
    }

    package func resume() {
        for function in functions { function.resume() }
    }
}
