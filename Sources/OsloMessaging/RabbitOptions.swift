// The options of the rabbit driver. The service fills them from its configuration; defaults are oslo.messaging's.
package import AMQP

package struct RabbitOptions: Sendable, Equatable {
    /// The exchange of calls, casts and notifications; nova's is "nova".
    package var controlExchange = "nova"
    package var usesTLS = false
    package var tls = TLSSettings()
    /// AMQPLAIN, PLAIN or EXTERNAL.
    package var loginMethod = "AMQPLAIN"
    /// Seconds; 0 turns heartbeats off.
    package var heartbeatTimeout = 60
    package var heartbeatRate = 2
    /// Seconds before the second attempt to connect, what each further one adds, and where that ends.
    package var retryInterval = 1
    package var retryBackoff = 2
    package var retryIntervalMaximum = 30
    /// Seconds before every attempt after the first.
    package var reconnectDelay = 1.0
    package var missingConsumerRetryTimeout: Duration = .seconds(60)
    /// After a failure any other host, not the next one.
    package var isFailoverShuffled = false
    package var areQueuesDurable = false
    package var areQueuesAutoDeleted = false
    package var areQueuesMirrored = false
    package var isQuorumQueue = false
    package var quorumDeliveryLimit = 0
    package var quorumMaximumMemoryLength = 0
    package var quorumMaximumMemoryBytes = 0
    /// Seconds an unused reply or fanout queue lives.
    package var transientQueueTTL = 1800
    /// 0: the driver's own bound, see `MessageConsumer`.
    package var prefetchCount = 0
    package var connectionPoolSize = 30
    /// Seconds an unused publishing connection is kept.
    package var connectionPoolTTL = 1200
    /// How many publishing connections are kept even when unused.
    package var connectionPoolMinimum = 2

    package init() {}
}
