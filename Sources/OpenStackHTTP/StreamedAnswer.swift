// An answer whose body is taken as it comes, at the reader's pace: nothing is read ahead beyond the connection's buffers.
import AsyncHTTPClient
package import NIOCore

package struct StreamedAnswer: Sendable {
    package let status: Int
    let body: HTTPClientResponse.Body
    let request: String
    let service: String

    /// Calls `take` with each part of the body. A body that ends early throws `ServiceFault`; `take`'s errors pass through.
    package func forEach(_ take: (ByteBuffer) async throws -> Void) async throws {
        var parts = body.makeAsyncIterator()
        while true {
            let part: ByteBuffer?
            do {
                part = try await parts.next()
            } catch {
                throw ServiceFault(
                    kind: .unreachable, request: request, service: service, body: "answer cut off: \(error)")
            }
            guard let part else { return }
            try await take(part)
        }
    }
}
