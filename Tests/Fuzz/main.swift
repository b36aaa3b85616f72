// The fuzzer: runs the target that APUS_FUZZ_TARGET names under libFuzzer's options, or lists the targets with the length of their
// inputs. Tests/Lab/fuzz builds and calls it.
import CFuzzer
import Glibc

_ = FuzzTarget.chosen
private var count = CommandLine.argc
private var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe CommandLine.unsafeArgv

exit(
    unsafe LLVMFuzzerRunDriver(&count, &arguments) { bytes, byteCount in
        var input = Input(unsafe Array(UnsafeBufferPointer(start: bytes, count: byteCount)))
        let before = clock()
        FuzzTarget.chosen.body(&input)
        // Processor time, so that a busy host does not matter: the longest sound input takes a few milliseconds.
        let seconds = Double(clock() - before) / Double(CLOCKS_PER_SEC)
        if seconds > 2 { finding("\(seconds) s of work for \(byteCount) bytes") }
        return 0
    })
