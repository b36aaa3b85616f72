// The wire forms, against what oslo.messaging sends.
import AMQP
import JSON
import Testing

@testable import OsloMessaging

@Suite struct WireTests {
    @Test func requestHasTheKeysOfACall() {
        let request = WireRequest(
            method: "echo", arguments: ["a": 1], namespace: nil, version: "6.0",
            context: RequestContext(entries: ["request_id": "req-1", "is_admin": true]), uniqueID: "u",
            reply: ReplyAddress(queue: "reply_1", messageID: "m"), monitorSeconds: 60)
        #expect(
            request.message == [
                "method": "echo", "args": ["a": 1], "version": "6.0", "_unique_id": "u", "_msg_id": "m",
                "_reply_q": "reply_1", "_timeout": 60, "_context_request_id": "req-1", "_context_is_admin": true,
            ])
    }

    @Test func castHasNoReplyKeys() {
        let request = WireRequest(
            method: "echo", arguments: [:], namespace: "baseapi", version: "1.1", context: RequestContext(),
            uniqueID: "u", reply: nil, monitorSeconds: nil)
        #expect(
            request.message == [
                "method": "echo", "args": [:], "version": "1.1", "namespace": "baseapi", "_unique_id": "u",
            ])
    }

    @Test func envelopeHoldsTheMessageAsText() throws {
        let body = Envelope.encode(["method": "x"])
        #expect(
            String(decoding: body, as: UTF8.self)
                == #"{"oslo.message": "{\"method\": \"x\"}", "oslo.version": "2.0"}"#)
        #expect(try Envelope.decode(body) == ["method": "x"])
    }

    @Test func bodyWithoutEnvelopeIsTheMessage() throws {
        #expect(try Envelope.decode(Array(#"{"method": "x"}"#.utf8)) == ["method": "x"])
    }

    @Test(arguments: [
        ("", DropReason.notJSON), ("{", .notJSON), ("[]", .notAMessage), ("3", .notAMessage), ("null", .notAMessage),
        (#"{"oslo.version": "3.0", "oslo.message": "{}"}"#, .envelopeVersion),
        (#"{"oslo.version": "2.1", "oslo.message": "{}"}"#, .envelopeVersion),
        (#"{"oslo.version": 2, "oslo.message": "{}"}"#, .envelopeVersion),
        (#"{"oslo.version": "2.0", "oslo.message": {}}"#, .notAMessage),
        (#"{"oslo.version": "2.0", "oslo.message": "[]"}"#, .notAMessage),
        (#"{"oslo.version": "2.0", "oslo.message": "{"}"#, .notJSON),
    ])
    func malformedBodiesAreNamed(_ body: String, _ reason: DropReason) {
        #expect(throws: (any Error).self) { try Envelope.decode(Array(body.utf8)) }
        do {
            _ = try Envelope.decode(Array(body.utf8))
        } catch {
            #expect(error.reason == reason)
        }
    }

    @Test func nestingOfTenThousandIsAnError() {
        let deep = String(repeating: "[", count: 10_000)
        #expect(throws: EnvelopeError.self) { try Envelope.decode(Array(deep.utf8)) }
    }

    @Test func failureIsATextWithClassAndModule() throws {
        let failure = RemoteFailure(
            className: "InstanceNotFound_Remote", module: "nova.exception_Remote", message: "gone",
            keywords: ["code": 404])
        let value = try JSONValue.parse(failure.wireText)
        #expect(value["class"] == "InstanceNotFound" && value["module"] == "nova.exception")
        #expect(value["args"] == ["gone"] && value["kwargs"] == ["code": 404])
        #expect(value["tb"]?.arrayValue?.isEmpty == false)
        let back = RemoteFailure(wireText: failure.wireText)
        #expect(back.className == "InstanceNotFound" && back.message == "gone" && back.keywords == ["code": 404])
    }

    @Test func textThatIsNoFailureBecomesTheMessage() {
        #expect(RemoteFailure(wireText: "boom").message == "boom")
        #expect(RemoteFailure(wireText: "[1]").className == "RemoteError")
    }

    @Test func replyWithFailureHasNullResult() {
        let reply = WireReply.end("m", .failure(RemoteFailure(className: "X", message: "y")))
        #expect(reply.message["result"] == .null && reply.message["ending"] == true)
        #expect(WireReply(reply.message)?.failure?.className == "X")
        #expect(WireReply(["result": 1]) == nil)
    }

    @Test func versionsAreCompatibleWithinAMajor() throws {
        let own = try #require(RPCVersion("6.1"))
        for (text, isServed) in [
            ("6.0", true), ("6.1", true), ("6.2", false), ("5.0", false), ("7.0", false), ("6", true),
        ] {
            #expect(own.serves(try #require(RPCVersion(text))) == isServed)
        }
        for text in ["", "x", "6.x", "-1.0", "6..1", "99999999999999999999.0"] { #expect(RPCVersion(text) == nil) }
    }

    @Test func notificationTimeIsPythonsForm() {
        #expect(
            NotificationTime.text(secondsSince1970: 1_795_384_196, microseconds: 405_074)
                == "2026-11-22 21:49:56.405074")
        #expect(NotificationTime.text(secondsSince1970: 951_782_400, microseconds: 0) == "2000-02-29 00:00:00.000000")
    }

    @Test func identifiersAreVersionFourUUIDs() {
        let id = MessageID.dashed()
        #expect(id.count == 36 && id.dropFirst(14).first == "4")
        #expect(MessageID.hex().count == 32 && MessageID.hex() != MessageID.hex())
    }
}
