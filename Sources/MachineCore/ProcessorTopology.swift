// How the vCPUs of a guest lie in packages, cores and threads, and the APIC ids that follow (Intel SDM 3A §9.9).

/// Sockets × cores × threads of the guest.
package struct ProcessorTopology: Sendable, Equatable {
    package var sockets: Int
    package var cores: Int
    package var threads: Int
    package var count: Int { sockets * cores * threads }

    package init(sockets: Int, cores: Int, threads: Int) {
        self.sockets = sockets
        self.cores = cores
        self.threads = threads
    }

    /// Bits of an APIC id that number `count` things.
    package static func width(of count: Int) -> UInt32 {
        count <= 1 ? 0 : UInt32(Int.bitWidth - (count - 1).leadingZeroBitCount)
    }

    /// The APIC id of vCPU `index`: thread, core and socket in bit fields of their own, so that ids have gaps where a count is
    /// no power of two.
    package func apicID(of index: Int) -> UInt32 {
        let threadWidth = Self.width(of: threads), coreWidth = Self.width(of: cores)
        let thread = UInt32(index % threads), core = UInt32(index / threads % cores),
            socket = UInt32(index / threads / cores)
        return socket << (threadWidth + coreWidth) | core << threadWidth | thread
    }
}
