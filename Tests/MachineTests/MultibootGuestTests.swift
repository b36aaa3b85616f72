import Glibc
import HostSystem
import MachineConfiguration
import Testing

/// A multiboot image that the monitor starts itself, and the debug ports by which it answers.
extension GuestTests {
    @Suite struct MultibootGuestTests {
        private static func little(_ values: UInt32...) -> [UInt8] { values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } } }

        /// Writes its command line and its module's first byte to port 0xE9, then 0x10 to port 0xF4.
        private static var image: [UInt8] {
            let magic: UInt32 = 0x1BAD_B002, flags: UInt32 = 0x1_0003, load: UInt32 = 0x10_0000
            let code: [UInt8] = [
                0x3D, 0x02, 0xB0, 0xAD, 0x2B,  // cmp eax, 2BADB002h
                0x75, 0x1C,  // jne to the end
                0x8B, 0x73, 0x10,  // mov esi, [ebx + 16]
                0xAC, 0x84, 0xC0, 0x74, 0x04, 0xE6, 0xE9, 0xEB, 0xF7,  // lodsb; test al, al; jz out of it; out E9h, al; again
                0x8B, 0x73, 0x18, 0x8B, 0x36, 0x8A, 0x06, 0xE6, 0xE9,  // mov esi, [ebx + 24]; mov esi, [esi]; mov al, [esi]; out E9h, al
                0xB8, 0x10, 0, 0, 0, 0xE7, 0xF4,  // mov eax, 10h; out F4h, eax
                0xF4, 0xEB, 0xFD,  // hlt; jmp back
            ]
            return little(magic, flags, 0 &- magic &- flags, load, load, 0, 0, load + 32) + code
        }

        private static func file(_ bytes: [UInt8]) throws -> Int {
            let number = try makeMemoryFile(named: "file", byteCount: bytes.count).release()
            try #require(pwrite(number, bytes, bytes.count, 0) == bytes.count)
            return Int(number)
        }

        @Test func aMultibootImageReadsItsCommandLineAndModuleAndEndsTheMonitorWithItsStatus() throws {
            let log = try Self.file([])
            let monitor = try MonitorProcess { machine in
                for number in [machine.kernel, machine.initrd].compactMap({ $0 }) { close(CInt(number)) }
                machine.kernel = try Self.file(Self.image)
                machine.initrd = try Self.file(Array("!module".utf8))
                machine.commandLine = "hello"
                machine.board = BoardConfiguration(debugConsole: Int(dup(CInt(log))), debugExit: true)
            }
            #expect(monitor.exitStatus() == 0x21)
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = pread(CInt(log), &bytes, bytes.count, 0)
            #expect(String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self) == "kernel hello!")
            close(CInt(log))
        }
    }
}
