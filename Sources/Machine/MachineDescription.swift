// What a machine is made of. Every file is an open descriptor: the machine opens nothing.
package import Firmware

package struct MachineDescription: Sendable {
    package var memoryMiB: UInt64 = 256
    package var vcpuCount = 1
    package var kernel: CInt = -1
    package var initrd: CInt?
    package var commandLine = "console=ttyS0"
    package var disks: [(descriptor: CInt, name: String, isReadOnly: Bool)] = []
    package var system = SystemInformation(
        manufacturer: "OpenStack Foundation", product: "OpenStack Nova", version: "", serial: "", uuid: [UInt8](repeating: 0, count: 16),
        family: "Virtual Machine")
    /// A guest that resets ends instead.
    package var endsOnReset = false

    package init() {}
}
