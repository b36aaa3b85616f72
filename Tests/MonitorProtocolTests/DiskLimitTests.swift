import JSON
import MachineConfiguration
import Testing

@Suite struct DiskLimitTests {
    private func machine(_ limits: String) throws -> GuestConfiguration {
        let text =
            #"{"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":64,"cpu":{"count":1},"kernel":{"fd":3},"#
            + #""disks":[{"id":"a","fd":5,"limits":\#(limits)}]}"#
        return try GuestConfiguration(parsing: Array(text.utf8))
    }

    @Test func limitsAreReadAndWritten() throws {
        let machine = try machine(#"{"readBytes":{"perSecond":1000,"burst":5000},"totalOperations":{"perSecond":7}}"#)
        #expect(
            machine.disks[0].limits
                == DiskLimits([.readBytes: .init(perSecond: 1000, burst: 5000), .totalOperations: .init(perSecond: 7)]))
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
    }

    @Test(arguments: [
        (#"{"readBytes":{"perSecond":0}}"#, "disks[0].limits.readBytes.perSecond"),
        (#"{"readBytes":{"perSecond":1,"burst":0}}"#, "disks[0].limits.readBytes.burst"),
        (#"{"readBytes":{}}"#, "disks[0].limits.readBytes.perSecond"), (#"{"bytes":{"perSecond":1}}"#, "disks[0].limits.bytes"),
    ])
    func whatIsNoLimitIsRefusedAndNamed(limits: String, place: String) {
        let refusal = #expect(throws: ConfigurationError.self) { try machine(limits) }
        #expect(refusal?.path == place)
    }
}
