import ComputeDriver
import JSON
import MachineConfiguration
import NovaObjects
import Testing

@testable import MachineDriver

/// What a server may ask for, what it may not, and what it reads then.
@Suite struct PropertyRulesTests {
    private func image(_ properties: [String: JSONValue]) -> ImageFields { ImageFields(["properties": .object(properties)]) }

    private func refusal(_ properties: [String: JSONValue], _ specs: [String: String] = [:]) -> String? {
        do {
            try PropertyRule.check(image(properties), specs)
            return nil
        } catch {
            #expect(error.novaClass == "UnsupportedHardware" && error.fault == .caller)
            return error.tenantMessage
        }
    }

    @Test(arguments: PropertyRule.all.indices) func everyRuleRefusesAndAccepts(index: Int) {
        let rule = PropertyRule.all[index]
        let wrong = rule.accepts("false") ? "true" : "false"
        #expect(!rule.accepts(wrong))
        let fine: String? =
            switch rule.acceptable {
            case .words(let words): words.first?.uppercased()
            case .off: "no"
            case .on: "True"
            case .nothing: nil
            }
        for name in rule.imageProperties {
            #expect(refusal([name: .string(wrong)])?.contains("image property \(name) asks for \(rule.meaning)") == true)
            if let fine { #expect(refusal([name: .string(fine)]) == nil) }
        }
        for name in rule.extraSpecs {
            #expect(refusal([:], [name: wrong])?.contains("extra spec \(name) asks for \(rule.meaning)") == true)
            if let fine { #expect(refusal([:], [name: fine]) == nil) }
        }
    }

    @Test func whatIsInNoListIsNoReasonToRefuse() {
        #expect(refusal(["os_distro": "debian", "owner": "x", "hw_disk_bus": "sata", "base_image_ref": "a"], ["trait:CUSTOM_A": "required"]) == nil)
        // Glance's form has numbers and truth values, and no "properties".
        #expect(throws: DriverError.self) { try PropertyRule.check(ImageFields(["hw_mem_encryption": true]), [:]) }
        #expect(refusal(["hw_serial_port_count": 1, "hw_video_ram": 0]) == nil && refusal(["hw_serial_port_count": 2]) != nil)
    }

    @Test func watchdogAndEventTimerComeFromImageAndFlavor() throws {
        func devices(_ properties: [String: JSONValue], _ specs: [String: String] = [:]) throws -> BoardDevices {
            try BoardDevices(image(properties), specs)
        }
        #expect(try devices([:]) == BoardDevices())
        var both = try devices(["hw_time_hpet": "yes", "hw_watchdog_action": "reset"], ["hw:watchdog_action": "poweroff"])
        #expect(both.hasHPET && both.watchdog == .poweroff)
        #expect(BoardDevices(json: both.json) == both)
        var board = BoardConfiguration()
        both.apply(to: &board)
        #expect(board.hpet && board.watchdog == .poweroff)
        both = try devices(["hw_watchdog_action": "disabled"])
        #expect(both.watchdog == nil && BoardDevices(json: nil) == both)
        let error = #expect(throws: DriverError.self) { try devices(["hw_watchdog_action": "bark"]) }
        #expect(error?.novaClass == "InvalidWatchdogAction")
        #expect(error?.tenantMessage == "Provided watchdog action (bark) is not supported; there are disabled, reset, poweroff, pause, none.")
    }
}
