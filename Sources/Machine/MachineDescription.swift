// What a machine is made of. Every file is an open descriptor: the machine opens nothing.
package import Firmware

package struct MachineDescription: Sendable {
    package var memoryMiB: UInt64 = 256
    package var vcpuCount = 1
    package var kernel: CInt = -1
    package var initrd: CInt?
    package var commandLine = "console=ttyS0"
    package var disks: [(descriptor: CInt, name: String, isReadOnly: Bool)] = []
    /// Taps with IFF_VNET_HDR, each on a virtio-net of its own.
    package var networks: [(tap: CInt, name: String, mac: [UInt8])] = []
    package var hasEntropy = false
    package var hasBalloon = false
    package var system = SystemInformation(
        manufacturer: "OpenStack Foundation", product: "OpenStack Nova", version: "", serial: "", uuid: [UInt8](repeating: 0, count: 16),
        family: "Virtual Machine")
    /// A guest that resets ends instead.
    package var endsOnReset = false

    package init() {}
}
