import Testing

@testable import Compute

struct IPNetworkTests {
    @Test(arguments: [
        ("10.0.0.1", "10.0.0.1"), ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("::", "::"), ("::1", "::1"),
        ("fe80::", "fe80::"), ("::ffff:10.0.0.1", "::ffff:a00:1"), ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"), ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"),
    ]) func addressesAreRead(_ text: String, _ canonical: String) {
        #expect(IPAddress(text)?.text == canonical)
    }

    @Test(arguments: [
        "", "10.0.0", "10.0.0.256", "10.0.0.1.2", "+1.0.0.0", "1:2:3", ":::", "1::2::3", ":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
        "g::", "12345::", "::1.2.3", "1.2.3.4::", "-1::", "10.0.0.１",
    ]) func otherTextIsNoAddress(_ text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(arguments: [
        ("10.0.3.7/22", "10.0.0.0", "255.255.252.0"), ("0.0.0.0/0", "0.0.0.0", "0.0.0.0"),
        ("10.0.0.1", "10.0.0.1", "255.255.255.255"), ("2001:db8::5/64", "2001:db8::", "ffff:ffff:ffff:ffff::"),
        ("::/0", "::", "::"),
    ]) func masksFollowFromLengths(_ text: String, _ network: String, _ mask: String) throws {
        let range = try #require(IPNetwork(text))
        #expect(range.network.text == network)
        #expect(range.netmask.text == mask)
    }

    @Test(arguments: ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "/24", "10.0.0.0/99999999999999999999"])
    func otherTextIsNoNetwork(_ text: String) {
        #expect(IPNetwork(text) == nil)
    }

    @Test func anAddressIsInsideOrNot() throws {
        let range = try #require(IPNetwork("192.168.1.1/25"))
        #expect(range.contains(try #require(IPAddress("192.168.1.127"))))
        #expect(!range.contains(try #require(IPAddress("192.168.1.128"))))
        #expect(!range.contains(try #require(IPAddress("::ffff:192.168.1.1"))))
    }
}
