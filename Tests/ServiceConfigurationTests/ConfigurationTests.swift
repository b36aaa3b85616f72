import Foundation
import ServiceConfiguration
import Testing

/// Reads texts as files, in order.
private func load(
    _ texts: String..., environment: [String: String] = [:],
    overrides: [(group: String, name: String, value: String)] = []
) throws -> LoadedConfiguration {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    var paths: [String] = []
    for (index, text) in texts.enumerated() {
        let file = folder.appendingPathComponent("\(index).conf")
        try Data(text.utf8).write(to: file)
        paths.append(file.path)
    }
    return try Configuration.load(
        files: ConfigurationFiles(paths: paths), environment: environment, overrides: overrides,
        host: HostDefaults(hostName: "node-1", address: "192.0.2.7"))
}

@Suite struct ConfigurationTests {
    @Test func `nothing written gives Nova's defaults`() throws {
        let configuration = try load().configuration
        #expect(configuration.host == "node-1")
        #expect(configuration.myBlockStorageIP == "192.0.2.7")
        #expect(configuration.messaging.controlExchange == "nova")
        #expect(configuration.intervals.report == .seconds(10))
        #expect(configuration.resources.reservedHostMemoryMiB == 512)
        #expect(configuration.placement.serviceType == "placement")
        #expect(configuration.placement.validInterfaces == ["internal", "public"])
        #expect(!configuration.notifications.isEnabled)
        #expect(configuration.logging.file == nil)
    }

    @Test func `reserved pages are read, and what is none is a problem with its place`() throws {
        let pages = try load(
            """
            [DEFAULT]
            reserved_huge_pages = node:0,size:2048,count:64
            reserved_huge_pages = node:1,size:1GB,count:2
            """
        ).configuration.resources.reservedHugePages
        #expect(pages == [ReservedPages(node: 0, sizeKiB: 2048, count: 64), ReservedPages(node: 1, sizeKiB: 1_048_576, count: 2)])
        for wrong in ["node:0,size:2048", "node:-1,size:4,count:1", "node:0,size:2X,count:1", "node:0,node:0,size:2,count:1", "64"] {
            let error = #expect(throws: ConfigurationError.self) { try load("[DEFAULT]\nreserved_huge_pages = \(wrong)\n") }
            #expect(error?.problems.first?.contains("reserved_huge_pages") == true, "\(wrong)")
        }
    }

    @Test func `references name other options and a double dollar is one`() throws {
        let configuration = try load(
            """
            [DEFAULT]
            state_path = /srv/nova
            my_ip = 10.0.0.5
            transport_url = rabbit://u:p$$w@${my_ip}:5672/
            [placement]
            username = $DEFAULT.host
            password = a\\$b
            """
        ).configuration
        #expect(configuration.instancesPath == "/srv/nova/instances")
        #expect(configuration.messaging.transportURL == "rabbit://u:p$w@10.0.0.5:5672/")
        #expect(configuration.placement.username == "node-1")
        #expect(configuration.placement.password == "a$b")
    }

    @Test func `comments, continuation lines, colons and quotes are read as oslo does`() throws {
        let configuration = try load(
            """
            # a comment
            [DEFAULT]
            ; another
            host: node-2
            [glance]
            api_servers = http://a:9292,
                http://b:9292,
              http://c:9292
            [neutron]
            ovs-bridge = "br int"
            """
        ).configuration
        #expect(configuration.host == "node-2")
        #expect(configuration.images.glanceAPIServers == ["http://a:9292", "http://b:9292", "http://c:9292"])
        #expect(configuration.network.ovsBridge == "br int")
    }

    @Test func `later files, the environment and the command line win in this order`() throws {
        let first = "[DEFAULT]\nhost = a\nreport_interval = 5\n[oslo_messaging_notifications]\ndriver = noop\n"
        let second = "[DEFAULT]\nhost = b\n[oslo_messaging_notifications]\ndriver = messagingv2\n"
        #expect(try load(first, second).configuration.host == "b")
        #expect(try load(first, second).configuration.intervals.report == .seconds(5))
        #expect(try load(first, second).configuration.notifications.drivers == ["noop", "messagingv2"])
        let environment = ["OS_DEFAULT__HOST": "c", "OS_AUTH_URL": "http://x"]
        #expect(try load(first, second, environment: environment).configuration.host == "c")
        let loaded = try load(first, environment: environment, overrides: [("DEFAULT", "host", "d")])
        #expect(loaded.configuration.host == "d")
    }

    @Test func `deprecated names are read with a notice, unknown options are listed`() throws {
        let loaded = try load(
            """
            [DEFAULT]
            rpc_thread_pool_size = 8
            flux_capacitor = on
            [libvirt]
            connection_uri = qemu:///system
            """)
        #expect(loaded.configuration.messaging.executorPoolSize == 8)
        #expect(loaded.notices.count == 1)
        #expect(loaded.notices.first?.contains(":2: [DEFAULT] rpc_thread_pool_size is deprecated") == true)
        #expect(loaded.unknownOptions == ["[DEFAULT] flux_capacitor", "[libvirt] connection_uri"])
    }

    @Test(arguments: [
        ("[DEFAULT]\nreport_interval = ten\n", ":2: [DEFAULT] report_interval: \"ten\" is not an integer"),
        ("[DEFAULT]\nreport_interval = 0\n", ":2: [DEFAULT] report_interval: 0 is out of range: at least 1"),
        ("[DEFAULT]\n\ndebug = maybe\n", ":3: [DEFAULT] debug: \"maybe\" is not a truth value"),
        ("[DEFAULT]\ncpu_allocation_ratio = much\n", ":2: [DEFAULT] cpu_allocation_ratio: \"much\" is not a number"),
        ("[placement]\npassword = a$b\n", ":2: [placement] password: \"$b\" names no option"),
        ("[placement]\nauth_type = v3token\n", ":2: [placement] auth_type: \"v3token\" is not supported"),
        ("[notifications]\nnotification_format = xml\n", ":2: [notifications] notification_format: \"xml\" is none of"),
        ("host = a\n", ":1: \"host\" stands before the first section"),
        ("[DEFAULT]\nhost\n", ":2: no \"=\" or \":\" after \"host\""),
        ("[DEFAULT\n", ":1: \"[DEFAULT\" is no section header"),
        ("[DEFAULT]\n  host = a\n", ":2: a line that begins with a blank continues nothing"),
        ("[DEFAULT]\n= a\n", ":2: no option name before \"=\""),
        ("[DEFAULT]\nhost = $my_ip\nmy_ip = $host\n", "its references go in a circle"),
    ])
    func `a mistake names its place`(text: String, problem: String) {
        let error = #expect(throws: ConfigurationError.self) { try load(text) }
        #expect(error?.problems.contains { $0.contains(problem) } == true, "\(error?.problems ?? [])")
    }

    @Test func `all mistakes are named in one run`() {
        let error = #expect(throws: ConfigurationError.self) {
            try load("[DEFAULT]\nreport_interval = ten\ndebug = maybe\n")
        }
        #expect(error?.problems.count == 2)
    }

    @Test func `a file that is not there is a mistake`() {
        #expect(throws: ConfigurationError.self) {
            try Configuration.load(
                files: ConfigurationFiles(paths: ["/nonexistent/nova.conf"]), environment: [:],
                host: HostDefaults(hostName: "a", address: "b"))
        }
    }

    @Test func `credentials may be in another section`() throws {
        let configuration = try load(
            """
            [placement]
            auth_section = keystone
            region_name = R
            [keystone]
            auth_url = http://k:5000
            username = nova
            password = secret
            default_domain_id = default
            """
        ).configuration
        #expect(configuration.placement.hasCredentials)
        #expect(configuration.placement.userDomainID == "default")
        #expect(configuration.placement.regionName == "R")
        #expect(!configuration.neutron.hasCredentials)
    }

    @Test(arguments: [
        ("log_file = n.log\nlog_dir = /l\n", "/l/n.log"), ("log_dir = /l\n", "/l/nova-compute.log"),
        ("log_file = /x/n.log\nlog_dir = /l\n", "/x/n.log"), ("log_file = n.log\n", "n.log"),
    ])
    func `the log file's name is put together`(text: String, path: String) throws {
        #expect(try load("[DEFAULT]\n" + text).configuration.logging.file == path)
    }

    @Test func `directories come after files, in the order of names`() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        for name in ["20-b.conf", "10-a.conf", "README", ".hidden.conf"] {
            try Data().write(to: folder.appendingPathComponent(name))
        }
        let files = ConfigurationFiles(files: ["/etc/n.conf"], directories: [folder.path], environment: [:])
        #expect(files.paths == ["/etc/n.conf", "\(folder.path)/10-a.conf", "\(folder.path)/20-b.conf"])
    }
}
