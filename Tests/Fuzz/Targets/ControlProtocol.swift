// What comes over the control socket, and the machine's description: lines, requests, replies and events, configuration.
import JSON
import MachineConfiguration
import MonitorProtocol

let controlProtocolTarget = FuzzTarget("control-protocol", 4096) { input in
    var framer = LineFramer(limit: 1 << 10)
    // In pieces, as a socket brings them.
    while !input.isEmpty {
        framer.append(input.take(1 + Int(input.byte())))
        do throws(LineTooLong) {
            while let line = try framer.next() {
                if let request = try? MonitorRequest(parsing: line), (try? MonitorRequest(parsing: request.line)) != request {
                    finding("a request that is written reads as another one")
                }
                _ = try? MonitorMessage(parsing: line)
            }
        } catch { return }
    }
}

let configurationTarget = FuzzTarget("configuration", 4096) { input in
    guard let configuration = try? GuestConfiguration(parsing: input.rest()) else { return }
    if (try? GuestConfiguration(json: configuration.json)) != configuration { finding("a description that is written reads as another one") }
}
