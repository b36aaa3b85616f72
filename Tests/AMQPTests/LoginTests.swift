// SASL responses, byte for byte.
import Testing

@testable import AMQP

@Suite struct LoginTests {
    @Test func amqplainIsATableWithoutItsLength() {
        let response = LoginMethod.amqplain.response(user: "nova", password: "s3c")
        #expect(
            response == [5] + Array("LOGIN".utf8) + [UInt8(ascii: "S"), 0, 0, 0, 4] + Array("nova".utf8)
                + [8] + Array("PASSWORD".utf8) + [UInt8(ascii: "S"), 0, 0, 0, 3] + Array("s3c".utf8))
    }

    @Test func plainSeparatesWithZeroes() {
        #expect(LoginMethod.plain.response(user: "a", password: "b") == [0, 97, 0, 98])
    }

    @Test func externalSendsTheUser() {
        #expect(LoginMethod.external.response(user: "a", password: "b") == [97])
    }
}
