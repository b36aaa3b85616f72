// The decisions of one instance's runner: what is taken, in which order, what is refused. No waiting, no time, no I/O: the
// runner asks and carries the answer out.
//
//     idle ──accept──► running ──finished──► next: event, else terminate, else request, else idle
//                        │ terminate arrives during a build: cancel it
//                        └ a terminate succeeded: gone; further terminates succeed, everything else is InstanceNotFound

/// What a request is to the mailbox.
package enum InstanceRequestKind: Sendable, Equatable {
    /// News of the machine: they come first, so that the record is true when a request looks at it.
    case event
    case terminate
    /// A request that a terminate interrupts.
    case build
    case request
}

/// Why a request is not carried out.
package enum MailboxRefusal: Error, Sendable, Equatable {
    /// The bound on waiting requests is reached.
    case full
    /// The service is shutting down.
    case closed
    /// A terminate is before it.
    case terminating
    /// A terminate has succeeded.
    case gone
}

/// What waits for an instance's runner.
package struct InstanceMailbox<Request> {
    package enum Acceptance: Equatable {
        case accepted(startsRunner: Bool, cancelsRunning: Bool)
        case refused(MailboxRefusal)
    }

    package enum Step {
        case run(Request, InstanceRequestKind)
        /// Answer it without carrying it out.
        case answer(Request, MailboxRefusal)
        /// Nothing waits: the runner ends.
        case end
    }

    /// Requests that wait; what Nova's API lets through for one instance is far below.
    package static var limit: Int { 32 }

    private var events: [Request] = []
    private var terminates: [Request] = []
    private var requests: [(Request, InstanceRequestKind)] = []
    private var running: InstanceRequestKind?
    private var hasRunner = false
    private var isGone = false
    private var isClosed = false

    package init() {}

    package var isIdle: Bool { !hasRunner }
    package var waitingCount: Int { events.count + terminates.count + requests.count }

    package mutating func submit(_ request: Request, _ kind: InstanceRequestKind) -> Acceptance {
        if isClosed { return .refused(.closed) }
        // A delete must get through where everything else is stuck.
        if kind != .terminate, waitingCount >= Self.limit { return .refused(.full) }
        if kind == .terminate, terminates.count >= Self.limit { return .refused(.full) }
        if kind != .terminate, kind != .event, isTerminating { return .refused(isGone ? .gone : .terminating) }
        switch kind {
        case .event: events.append(request)
        case .terminate: terminates.append(request)
        case .build, .request: requests.append((request, kind))
        }
        let startsRunner = !hasRunner
        hasRunner = true
        return .accepted(startsRunner: startsRunner, cancelsRunning: kind == .terminate && running == .build)
    }

    package mutating func next() -> Step {
        if isGone {
            if !terminates.isEmpty { return .answer(terminates.removeFirst(), .gone) }
            if !events.isEmpty { return .answer(events.removeFirst(), .gone) }
            if !requests.isEmpty { return .answer(requests.removeFirst().0, .gone) }
        } else if !events.isEmpty {
            running = .event
            return .run(events.removeFirst(), .event)
        } else if !terminates.isEmpty {
            if !requests.isEmpty { return .answer(requests.removeFirst().0, .terminating) }
            running = .terminate
            return .run(terminates.removeFirst(), .terminate)
        } else if !requests.isEmpty {
            let (request, kind) = requests.removeFirst()
            running = kind
            return .run(request, kind)
        }
        hasRunner = false
        return .end
    }

    /// The running request ended. `isGone`: it was a terminate, and the instance is no more.
    package mutating func finished(isGone: Bool) {
        running = nil
        if isGone { self.isGone = true }
    }

    /// Takes nothing any more; what waits is still carried out.
    package mutating func close() { isClosed = true }

    private var isTerminating: Bool { isGone || running == .terminate || !terminates.isEmpty }
}
