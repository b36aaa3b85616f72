// One runner per instance that has something to do: operations on one instance one after the other, on different instances side
// by side. A runner starts with the first request and ends when nothing waits. `run` owns them all: on a graceful shutdown
// nothing is taken any more, and it returns when what was taken is done; cancelled, it cancels the operations.
import Synchronization
import ServiceLifecycle

/// Why an operation was cancelled.
package final class Interruption: Sendable {
    private let flag = Atomic<Bool>(false)
    package init() {}
    /// True where a terminate came; a cancellation without it is the end of the service.
    package var isDeleting: Bool { flag.load(ordering: .acquiring) }
    func interrupt() { flag.store(true, ordering: .releasing) }
}

/// Something to be done for an instance, and what to do where it is refused.
package struct InstanceRequest: Sendable {
    let name: String
    let kind: InstanceRequestKind
    let interruption: Interruption
    /// True where the instance is gone afterwards. Reports its failure by itself.
    let work: @Sendable () async -> Bool
    /// Answers whoever asked.
    let refuse: @Sendable (MailboxRefusal) async -> Void

    init(
        _ name: String, _ kind: InstanceRequestKind, interruption: Interruption = Interruption(),
        work: @escaping @Sendable () async -> Bool, refuse: @escaping @Sendable (MailboxRefusal) async -> Void = { _ in }
    ) {
        self.name = name
        self.kind = kind
        self.interruption = interruption
        self.work = work
        self.refuse = refuse
    }
}

package final class InstanceRunners: Service {
    private struct Entry {
        var mailbox = InstanceMailbox<InstanceRequest>()
        var task: Task<Bool, Never>?
        var interruption: Interruption?
    }
    private struct State {
        var entries: [String: Entry] = [:]
        var isClosed = false
    }
    private let state = Mutex(State())
    private let starts: AsyncStream<String>
    private let startRunner: AsyncStream<String>.Continuation

    package init() {
        (starts, startRunner) = AsyncStream.makeStream(of: String.self)
    }

    /// Queues `request`; nil where it was taken. The caller answers a refusal.
    func submit(_ request: InstanceRequest, for instanceUUID: String) -> MailboxRefusal? {
        let (acceptance, task) = state.withLock { state in
            if state.isClosed { return (InstanceMailbox<InstanceRequest>.Acceptance.refused(.closed), Task<Bool, Never>?.none) }
            var entry = state.entries[instanceUUID] ?? Entry()
            let acceptance = entry.mailbox.submit(request, request.kind)
            var task: Task<Bool, Never>?
            if case .accepted(_, cancelsRunning: true) = acceptance {
                entry.interruption?.interrupt()
                task = entry.task
            }
            if !entry.mailbox.isIdle { state.entries[instanceUUID] = entry }
            return (acceptance, task)
        }
        task?.cancel()
        switch acceptance {
        case .accepted(let startsRunner, _):
            if startsRunner { startRunner.yield(instanceUUID) }
            return nil
        case .refused(let refusal): return refusal
        }
    }

    /// Instances that have a runner.
    package var activeCount: Int { state.withLock { $0.entries.count } }

    package func run() async {
        await withGracefulShutdownHandler {
            await withDiscardingTaskGroup { group in
                for await instanceUUID in starts { group.addTask { await self.serve(instanceUUID) } }
            }
        } onGracefulShutdown: {
            self.close()
        }
    }

    /// Takes nothing any more.
    package func close() {
        state.withLock { state in
            state.isClosed = true
            for key in state.entries.keys { state.entries[key]?.mailbox.close() }
        }
        startRunner.finish()
    }

    private func serve(_ instanceUUID: String) async {
        while true {
            switch step(instanceUUID) {
            case .end: return
            case .answer(let request, let refusal): await request.refuse(refusal)
            case .run(let request, _):
                // A task of its own, so that a terminate can cancel this one operation; it is awaited right here.
                let task = Task { await request.work() }
                attach(task, of: request, to: instanceUUID)
                let isGone = await withTaskCancellationHandler { await task.value } onCancel: { task.cancel() }
                finished(instanceUUID, isGone: isGone)
            }
        }
    }

    private func step(_ instanceUUID: String) -> InstanceMailbox<InstanceRequest>.Step {
        state.withLock { state in
            guard var entry = state.entries[instanceUUID] else { return .end }
            let step = entry.mailbox.next()
            if case .run(let request, _) = step { entry.interruption = request.interruption }
            if case .end = step { state.entries[instanceUUID] = nil } else { state.entries[instanceUUID] = entry }
            return step
        }
    }

    private func attach(_ task: Task<Bool, Never>, of request: InstanceRequest, to instanceUUID: String) {
        state.withLock { $0.entries[instanceUUID]?.task = task }
        // The terminate may have come between the step and this line.
        if request.interruption.isDeleting { task.cancel() }
    }

    private func finished(_ instanceUUID: String, isGone: Bool) {
        state.withLock { state in
            state.entries[instanceUUID]?.mailbox.finished(isGone: isGone)
            state.entries[instanceUUID]?.task = nil
            state.entries[instanceUUID]?.interruption = nil
        }
    }
}
