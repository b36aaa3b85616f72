// The conversation on a channel, frame by frame.
import Testing

@testable import AMQP

@Suite struct ChannelConversationTests {
    private let target = PublishTarget(exchange: "", routingKey: "reply_1", isMandatory: true)

    private func message(_ text: String) -> AMQPMessage { AMQPMessage(body: Array(text.utf8)) }

    /// Sends three messages and answers with their results.
    private func publishThree(_ conversation: inout ChannelConversation) -> [OneShot<Void>] {
        ["a", "b", "c"].map { text in
            let result = OneShot<Void>()
            conversation.sent(message(text), to: target, result)
            return result
        }
    }

    private func isSuccess(_ effect: ChannelConversation.Effect, for shot: OneShot<Void>) -> Bool {
        if case .published(let result, .success) = effect { return result === shot }
        return false
    }

    private func failure(_ effect: ChannelConversation.Effect, for shot: OneShot<Void>) -> AMQPError.Code? {
        if case .published(let result, .failure(let error as AMQPError)) = effect, result === shot { return error.code }
        return nil
    }

    @Test func oneAcknowledgementMayConfirmSeveral() {
        var conversation = ChannelConversation(maximumBodyByteCount: 100)
        let shots = publishThree(&conversation)
        let effects = conversation.receive(.acknowledged(tag: 2, isMultiple: true))
        #expect(effects.count == 2 && isSuccess(effects[0], for: shots[0]) && isSuccess(effects[1], for: shots[1]))
        #expect(conversation.receive(.acknowledged(tag: 2, isMultiple: false)).isEmpty)
        #expect(isSuccess(conversation.receive(.acknowledged(tag: 3, isMultiple: false))[0], for: shots[2]))
    }

    @Test func aReturnedMessageIsFoundByItsBody() {
        var conversation = ChannelConversation(maximumBodyByteCount: 100)
        let shots = publishThree(&conversation)
        #expect(
            conversation.receive(.returned(code: 312, text: "NO_ROUTE", exchange: "", routingKey: "reply_1")).isEmpty)
        #expect(conversation.receive(.header(bodySize: 1, properties: AMQPMessage(body: []))).isEmpty)
        #expect(conversation.receive(.body(Array("b".utf8))).isEmpty)
        let effects = conversation.receive(.acknowledged(tag: 0, isMultiple: true))
        #expect(effects.count == 3)
        #expect(isSuccess(effects[0], for: shots[0]) && isSuccess(effects[2], for: shots[2]))
        #expect(failure(effects[1], for: shots[1]) == .unroutable)
    }

    @Test func aRefusedMessageFails() {
        var conversation = ChannelConversation(maximumBodyByteCount: 100)
        let shots = publishThree(&conversation)
        #expect(failure(conversation.receive(.refused(tag: 1, isMultiple: false))[0], for: shots[0]) == .refused)
    }

    @Test func bodyFramesBecomeOneDelivery() throws {
        var conversation = ChannelConversation(maximumBodyByteCount: 100)
        _ = conversation.receive(
            .deliver(tag: 9, consumerTag: "2", isRedelivered: true, exchange: "nova", routingKey: "compute.h"))
        _ = conversation.receive(.header(bodySize: 5, properties: AMQPMessage(body: [], expiration: "1000")))
        #expect(conversation.receive(.body([1, 2, 3])).isEmpty)
        let effects = conversation.receive(.body([4, 5]))
        guard case .report(.delivery(let delivery))? = effects.first else {
            Issue.record("no delivery in \(effects)")
            return
        }
        #expect(delivery.message.body == [1, 2, 3, 4, 5])
        #expect(delivery.message.expiration == "1000")
        #expect(delivery.deliveryTag == 9 && delivery.isRedelivered && delivery.routingKey == "compute.h")
    }

    @Test func aBodyBeyondTheBoundIsSkippedAndReported() {
        var conversation = ChannelConversation(maximumBodyByteCount: 4)
        _ = conversation.receive(
            .deliver(tag: 1, consumerTag: "1", isRedelivered: false, exchange: "", routingKey: "q"))
        _ = conversation.receive(.header(bodySize: 5, properties: AMQPMessage(body: [])))
        guard case .report(.delivery(let delivery))? = conversation.receive(.body([1, 2, 3, 4, 5])).first else {
            Issue.record("no delivery")
            return
        }
        #expect(delivery.isOversized && delivery.message.body.isEmpty)
    }

    @Test(arguments: [
        BrokerFrame.body([1]), .header(bodySize: 1, properties: AMQPMessage(body: [])),
        .tune(channelMax: 1, frameMax: 1, heartbeat: 1),
        .done(method: MethodNumber.queueBindOK), .queueDeclared(QueueState(messageCount: 0, consumerCount: 0)),
    ])
    func aFrameOutOfPlaceEndsTheConnection(_ frame: BrokerFrame) {
        var conversation = ChannelConversation(maximumBodyByteCount: 4)
        guard case .end(let error)? = conversation.receive(frame).first else {
            Issue.record("\(frame) was taken")
            return
        }
        #expect(error.code == .protocolViolation)
    }

    @Test func channelCloseNamesTheRequestItAnswers() {
        var conversation = ChannelConversation(maximumBodyByteCount: 4)
        conversation.sent(.declareQueue(QueueDeclaration("compute")), OneShot())
        guard
            case .endAfterChannelClose(let error)? = conversation.receive(
                .channelClose(code: 406, text: "PRECONDITION_FAILED")
            ).first
        else {
            Issue.record("the channel error was not seen")
            return
        }
        #expect(error.replyCode == 406 && error.operation == "declare queue compute")
    }

    @Test func everythingUnansweredFailsWithTheConnection() {
        var conversation = ChannelConversation(maximumBodyByteCount: 4)
        _ = publishThree(&conversation)
        conversation.sent(.selectConfirms, OneShot())
        #expect(conversation.abandon(AMQPError(.connectionLost, "test", reason: "gone")).count == 4)
        #expect(conversation.receive(.acknowledged(tag: 3, isMultiple: true)).isEmpty)
    }
}
