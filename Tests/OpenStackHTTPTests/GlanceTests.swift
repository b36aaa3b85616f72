// Image data: right, wrong, cut, too long, and onto a full device.
import Foundation
import Glance
import JSON
import OpenStackHTTP
import Testing

@Suite struct GlanceTests {
    /// More than two of the writer's pieces, and not a multiple of one.
    private static let data = (0..<(2 << 20) + 77).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    private static let route = "GET /v2/images/i1/file"

    private func download(
        _ image: [String: JSONValue], _ answer: FakeAnswer
    ) async throws -> (count: Int64, file: [UInt8]) {
        var result: (Int64, [UInt8]) = (0, [])
        try await FakeCloud.with { cloud in
            cloud.service.on(Self.route, answer)
            result = try await FakeCloud.withScratchFile { file in
                let record = JSONValue.object(image.merging(["id": "i1"]) { $1 })
                return try await cloud.glance.download(record, to: file, as: .service)
            }
        }
        return result
    }

    // Digests of "abc" from FIPS 180-4's examples and RFC 1321 appendix A.5.
    @Test(arguments: [
        (
            "sha512",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
    ])
    func dataWithTheRightDigestIsWritten(algorithm: String, digest: String) async throws {
        let image: [String: JSONValue] = [
            "os_hash_algo": .string(algorithm), "os_hash_value": .string(digest), "size": 3,
        ]
        let (count, file) = try await download(image, FakeAnswer(body: Array("abc".utf8)))
        #expect(count == 3)
        #expect(file == Array("abc".utf8))
    }

    @Test func aLongBodyInChunksArrivesWhole() async throws {
        let (count, file) = try await download([:], FakeAnswer(body: Self.data, isChunked: true))
        #expect(count == Int64(Self.data.count))
        #expect(file == Self.data)
    }

    @Test func theChecksumDecidesWhereThereIsNoMultihash() async throws {
        let image: [String: JSONValue] = ["os_hash_algo": nil, "checksum": "900150983cd24fb0d6963f7d28e17f72"]
        let answer1 = try await download(image, FakeAnswer(body: Array("abc".utf8))).count
        #expect(answer1 == 3)
        await #expect(throws: ImageCorrupt.self) { try await download(image, FakeAnswer(body: Array("abd".utf8))) }
    }

    @Test func aDigestKeptUnderPropertiesIsVerified() async throws {
        let image: [String: JSONValue] = ["properties": ["os_hash_algo": "sha256", "os_hash_value": "00"]]
        await #expect(throws: ImageCorrupt.self) { try await download(image, FakeAnswer(body: Array("abc".utf8))) }
    }

    @Test(arguments: [2, 4]) func anotherSizeThanTheRecordsIsCorrupt(size: Int) async throws {
        let image: [String: JSONValue] = ["size": .integer(Int64(size))]
        await #expect(throws: ImageCorrupt.self) { try await download(image, FakeAnswer(body: Array("abc".utf8))) }
    }

    @Test func dataCutOffIsUnreachableNotCorrupt() async throws {
        let fault = await #expect(throws: ServiceFault.self) {
            try await download([:], FakeAnswer(body: Self.data, cutAfter: 1000))
        }
        #expect(fault?.kind == .unreachable)
    }

    @Test func anImageWithoutDataIsAFaultThatSaysSo() async throws {
        let fault = await #expect(throws: ServiceFault.self) { try await download([:], FakeAnswer(status: 204)) }
        #expect(fault?.status == 204)
    }

    @Test func anUnavailableServiceIsAskedAgain() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /v2/images/i1", FakeAnswer(status: 503), .json(["id": "i1"]))
            let answer2 = try await cloud.glance.image("i1", as: .service)["id"]
            #expect(answer2 == "i1")
        }
    }

    @Test func aFullDeviceIsNamed() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(Self.route, FakeAnswer(body: Self.data))
            let full = open("/dev/full", O_WRONLY)
            defer { close(full) }
            let failure = await #expect(throws: ImageWriteFailed.self) {
                try await cloud.glance.download(["id": "i1"], to: full, as: .service)
            }
            #expect(failure?.isOutOfSpace == true)
            #expect(failure.map { "\($0)".contains("ENOSPC") } == true)
        }
    }
}
