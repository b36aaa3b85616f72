// SASL responses (RabbitMQ's mechanisms). librabbitmq has no AMQPLAIN, which is oslo.messaging's default.

extension LoginMethod {
    /// The response to connection.start.
    func response(user: String, password: String) -> [UInt8] {
        switch self {
        case .plain: [0] + Array(user.utf8) + [0] + Array(password.utf8)
        case .amqplain: Self.field("LOGIN", user) + Self.field("PASSWORD", password)
        case .external: Array(user.utf8)
        }
    }

    /// One entry of a field table: AMQPLAIN's response is a table without its length.
    private static func field(_ name: String, _ value: String) -> [UInt8] {
        let bytes = Array(value.utf8)
        let length = UInt32(truncatingIfNeeded: bytes.count)
        let header = [
            UInt8(ascii: "S"), UInt8(truncatingIfNeeded: length >> 24), UInt8(truncatingIfNeeded: length >> 16),
            UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length),
        ]
        return [UInt8(truncatingIfNeeded: name.utf8.count)] + Array(name.utf8) + header + bytes
    }
}
