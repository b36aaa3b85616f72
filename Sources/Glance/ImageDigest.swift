// What an image's data must hash to (contract §8.1): the multihash where the record has one, else the md5 checksum.
import Crypto
import JSON
import Synchronization

final class ImageDigest: Sendable {
    private enum State {
        case sha512(SHA512)
        case sha384(SHA384)
        case sha256(SHA256)
        case md5(Insecure.MD5)
    }
    /// Locked, because the download's task makes it and a thread that may block feeds it.
    private let state: Mutex<State>
    let algorithm: String
    let expected: String

    /// Nil where the record promises nothing that can be checked: an image from before both fields.
    init?(of image: JSONValue) {
        let name = Self.field("os_hash_algo", of: image)?.lowercased()
        let value = Self.field("os_hash_value", of: image)
        let multihash: State? =
            switch name {
            case "sha512": .sha512(SHA512())
            case "sha384": .sha384(SHA384())
            case "sha256": .sha256(SHA256())
            case "md5": .md5(Insecure.MD5())
            default: nil
            }
        if let multihash, let name, let value {
            state = Mutex(multihash)
            algorithm = name
            expected = value.lowercased()
        } else if let checksum = Self.field("checksum", of: image) {
            state = Mutex(.md5(Insecure.MD5()))
            algorithm = "md5"
            expected = checksum.lowercased()
        } else {
            return nil
        }
    }

    /// A field of Glance's record, or of Nova's form of it, which keeps what it does not know under "properties".
    static func field(_ key: String, of image: JSONValue) -> String? {
        let value = image[key]?.stringValue ?? image["properties"]?[key]?.stringValue
        return value.flatMap { $0.isEmpty ? nil : $0 }
    }

    func update(_ bytes: [UInt8]) {
        state.withLock { state in
            switch state {
            case .sha512(var hash):
                hash.update(data: bytes)
                state = .sha512(hash)
            case .sha384(var hash):
                hash.update(data: bytes)
                state = .sha384(hash)
            case .sha256(var hash):
                hash.update(data: bytes)
                state = .sha256(hash)
            case .md5(var hash):
                hash.update(data: bytes)
                state = .md5(hash)
            }
        }
    }

    /// The digest so far in hexadecimal.
    var hexadecimal: String {
        state.withLock { state in
            switch state {
            case .sha512(let hash): Self.hexadecimal(hash.finalize())
            case .sha384(let hash): Self.hexadecimal(hash.finalize())
            case .sha256(let hash): Self.hexadecimal(hash.finalize())
            case .md5(let hash): Self.hexadecimal(hash.finalize())
            }
        }
    }

    private static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
