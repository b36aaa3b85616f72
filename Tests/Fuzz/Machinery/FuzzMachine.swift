// An accelerator without a processor, for devices that show windows and route lines.
import GuestMemory
import MachineCore

final class FuzzMachine: VirtualMachine {
    func register(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func unregister(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt { try FuzzInterrupts().makeMessageInterrupt() }
    func map(_ memory: GuestMemory) throws(AcceleratorError) {}
    func mapWindow(_ window: Int, _ pages: HostPages, at base: GuestAddress, isReadOnly: Bool) throws(AcceleratorError) {}
    func unmapWindow(_ window: Int) throws(AcceleratorError) {}
    func makeVCPU(index: Int, topology: ProcessorTopology) throws(AcceleratorError) -> any VirtualCPU { throw unused }
    func setLine(gsi: UInt32, isAsserted: Bool) {}
    func stopClock() throws(AcceleratorError) {}
    func startClock() throws(AcceleratorError) {}
    func show(_ model: ProcessorModel) throws(AcceleratorError) {}
    func setTimerInterrupt(isConnected: Bool) throws(AcceleratorError) {}
    func saveState() throws(AcceleratorError) -> [UInt8] { throw unused }
    func restoreState(_ state: [UInt8]) throws(AcceleratorError) { throw unused }
    private var unused: AcceleratorError { AcceleratorError("use", subject: "the fuzzer's machine", reason: "it has no processor") }
}
