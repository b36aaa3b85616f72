// A kernel handed to the loader: bzImage or an ELF file with a PVH entry, its RAM disk and command line.
import Firmware
import Glibc
import GuestMemory
import HostSystem

private let memory = must { try GuestMemory(byteCount: 32 << 20) }
private let kernel = must { try makeMemoryFile(named: "kernel", byteCount: 0) }
private let initrd = must { try makeMemoryFile(named: "initrd", byteCount: 0) }

let kernelLoaderTarget = FuzzTarget("kernel-loader", 8192) { input in
    let mode = input.byte(), byteCount = Int(input.number(UInt16.self))
    let bytes = input.rest()
    // The rest of a kernel is its payload: zeroes will do.
    _ = ftruncate(kernel.rawValue, 0)
    _ = unsafe pwrite(kernel.rawValue, bytes, bytes.count, 0)
    if mode & 1 != 0 { _ = ftruncate(kernel.rawValue, off_t(bytes.count + byteCount * 64)) }
    _ = ftruncate(initrd.rawValue, off_t(byteCount * Int(mode >> 4)))
    let commandLine = String(repeating: "x", count: mode & 4 != 0 ? byteCount & 0xFFF : 5)
    guard let image = try? ImageFile(descriptor: kernel.rawValue, named: "kernel"), let disk = try? ImageFile(descriptor: initrd.rawValue, named: "initrd")
    else { finding("a memory file is refused") }
    _ = try? loadKernel(
        BootSource(kernel: image, initrd: mode & 2 != 0 ? disk : nil, commandLine: commandLine, rsdp: GuestAddress(0xE_0000)), into: memory)
}
