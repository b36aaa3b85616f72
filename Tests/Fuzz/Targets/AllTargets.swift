// Every target by its name; a folder of this name in Corpus holds the inputs that are kept.

let allTargets: [FuzzTarget] = [
    // Text and bytes from outside the guest.
    jsonTarget, controlProtocolTarget, configurationTarget, savedStateTarget, kernelLoaderTarget,
    // Disk images.
    qcow2Target, compressedTarget, vmdkTarget, vhdTarget, vhdxTarget, vdiTarget,
    // Chips.
    i8042Target, rtcTarget, hpetTarget, pitTarget, uartTarget, dmaTarget, floppyTarget, interruptControllersTarget, watchdogTarget,
    flashTarget, powerTarget, pciTarget, firmwareConfigurationTarget,
    // Disk controllers.
    ahciTarget, ideTarget, nvmeTarget, scsiUnitsTarget,
    // virtio.
    virtioBlockTarget, virtioSCSITarget, virtioNetTarget, virtioEntropyTarget, virtioBalloonTarget,
]
