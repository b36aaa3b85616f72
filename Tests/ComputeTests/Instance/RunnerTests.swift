// One runner per instance: order, bounds, cancellation.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import ServiceMetrics
import Testing

@Suite struct MailboxTests {
    private func taken(_ mailbox: inout InstanceMailbox<String>) -> String {
        switch mailbox.next() {
        case .run(let request, _): request
        case .answer(let request, let refusal): "\(request): \(refusal)"
        case .end: "end"
        }
    }

    @Test func `events come first, then a terminate, then requests in their order`() {
        var mailbox = InstanceMailbox<String>()
        #expect(mailbox.submit("stop", .request) == .accepted(startsRunner: true, cancelsRunning: false))
        #expect(mailbox.submit("pause", .request) == .accepted(startsRunner: false, cancelsRunning: false))
        _ = mailbox.submit("news", .event)
        #expect(taken(&mailbox) == "news")
        mailbox.finished(isGone: false)
        #expect(taken(&mailbox) == "stop")
        mailbox.finished(isGone: false)
        _ = mailbox.submit("delete", .terminate)
        #expect(taken(&mailbox) == "pause: terminating")
        #expect(taken(&mailbox) == "delete")
    }

    @Test func `a terminate cancels a build and nothing else`() {
        for (kind, cancels) in [(InstanceRequestKind.build, true), (.request, false), (.event, false)] {
            var mailbox = InstanceMailbox<String>()
            _ = mailbox.submit("first", kind)
            _ = mailbox.next()
            #expect(
                mailbox.submit("delete", .terminate) == .accepted(startsRunner: false, cancelsRunning: cancels))
        }
    }

    @Test func `while a terminate is on its way requests are refused, after it they find nothing`() {
        var mailbox = InstanceMailbox<String>()
        _ = mailbox.submit("delete", .terminate)
        _ = mailbox.next()
        #expect(mailbox.submit("stop", .request) == .refused(.terminating))
        #expect(mailbox.submit("again", .terminate) == .accepted(startsRunner: false, cancelsRunning: false))
        mailbox.finished(isGone: true)
        #expect(taken(&mailbox) == "again: gone")
        #expect(mailbox.submit("stop", .request) == .refused(.gone))
        #expect(taken(&mailbox) == "end")
        #expect(mailbox.isIdle)
    }

    @Test func `a terminate that failed lets the next one try`() {
        var mailbox = InstanceMailbox<String>()
        _ = mailbox.submit("delete", .terminate)
        _ = mailbox.next()
        _ = mailbox.submit("again", .terminate)
        mailbox.finished(isGone: false)
        #expect(taken(&mailbox) == "again")
    }

    @Test func `a full mailbox refuses, but for a delete; a closed one refuses all and is emptied`() {
        var mailbox = InstanceMailbox<String>()
        for number in 0..<InstanceMailbox<String>.limit { _ = mailbox.submit("\(number)", .request) }
        #expect(mailbox.submit("one more", .request) == .refused(.full))
        #expect(mailbox.submit("news", .event) == .refused(.full))
        #expect(mailbox.submit("delete", .terminate) == .accepted(startsRunner: false, cancelsRunning: false))
        mailbox.close()
        #expect(mailbox.submit("delete", .terminate) == .refused(.closed))
        #expect(taken(&mailbox) == "0: terminating")
    }
}

@Suite struct RunnerTests {
    @Test func `operations on one instance follow one another, on two they run side by side`() async throws {
        let world = try World()
        let pause = try world.message("pause_instance")
        let gate = Gate()
        world.driver.behaviour["pause"] = { try await gate.wait() }
        world.driver.set(.running, of: try pause.instance.uuid)
        var other = try pause.instance
        other.object.load("uuid", "00000000-0000-0000-0000-00000000000b")
        world.rows.store(other)
        world.driver.set(.running, of: other.uuid)
        let second = pause.with { $0["instance"] = other.primitive }
        try await world.running {
            _ = try await world.endpoint.dispatch(pause)
            _ = try await world.endpoint.dispatch(pause)
            _ = try await world.endpoint.dispatch(second)
            try await eventually("two pauses") { world.journal.count("driver pause") == 2 }
            #expect(world.metrics.operationsInFlight.value("pause_instance") == 2)
            gate.open()
        }
        #expect(world.journal.count("driver pause") == 3)
        // The second one of the first instance found that its task was over.
        #expect(world.metrics.operations.value("pause_instance", "failure") == 1)
        #expect(world.manager.runners.activeCount == 0)
    }

    @Test func `a delete during a build cancels it and leaves nothing`() async throws {
        let world = try World()
        let build = try world.message("build_and_run_instance")
        let instance = try build.instance
        let gate = Gate()
        world.driver.behaviour["spawn"] = { try await gate.wait() }
        try await world.running {
            _ = try await world.endpoint.dispatch(build)
            try await eventually("the spawn") { world.journal.count("driver spawn") == 1 }
            world.rows.set("task_state", "deleting", of: instance.uuid)
            let delete = RPCRequest(
                method: "terminate_instance", arguments: ["instance": instance.primitive, "bdms": .null],
                namespace: nil, version: "6.0", context: build.context, isCall: false)
            _ = try await world.endpoint.dispatch(delete)
        }
        #expect(world.rows.row(instance.uuid)?.isDeleted == true)
        #expect(world.rows.faults.isEmpty)
        #expect(world.rows.casts.isEmpty)
        #expect(world.driver.state(of: instance.uuid) == nil)
        let abort = try #require(world.journal.index(of: "books abort claim"))
        let delete = try #require(world.journal.index(of: "event_start compute_terminate_instance"))
        #expect(abort < delete)
        #expect(world.journal.count("Instance.destroy") == 1)
    }

    @Test func `a build that waits for its turn is cancelled too`() async throws {
        let world = try World { $0.compute.maximumConcurrentBuilds = 1 }
        let first = try world.message("build_and_run_instance")
        var other = try first.instance
        other.object.load("uuid", "00000000-0000-0000-0000-00000000000b")
        world.rows.store(other)
        let otherUUID = other.uuid
        let second = first.with { $0["instance"] = other.primitive }
        let gate = Gate()
        world.driver.behaviour["spawn"] = { try await gate.wait() }
        try await world.running {
            _ = try await world.endpoint.dispatch(first)
            try await eventually("the first spawn") { world.journal.count("driver spawn") == 1 }
            _ = try await world.endpoint.dispatch(second)
            try await eventually("the second build") { world.metrics.operationsInFlight.value("build_and_run_instance") == 2 }
            world.rows.set("task_state", "deleting", of: other.uuid)
            let delete = RPCRequest(
                method: "terminate_instance", arguments: ["instance": other.primitive], namespace: nil, version: "6.0",
                context: first.context, isCall: false)
            _ = try await world.endpoint.dispatch(delete)
            try await eventually("the delete") { world.rows.row(otherUUID)?.isDeleted == true }
            #expect(world.journal.count("driver spawn") == 1)
            gate.open()
        }
        #expect(world.rows.row(try first.instance.uuid)?.states == ["active", "null"])
    }

    @Test func `a second delete has what it wanted`() async throws {
        let world = try World()
        let request = try world.message("terminate_instance")
        let gate = Gate()
        world.driver.behaviour["destroy"] = { try await gate.wait() }
        try await world.running {
            _ = try await world.endpoint.dispatch(request)
            try await eventually("the first delete") { world.journal.count("driver destroy") == 1 }
            _ = try await world.endpoint.dispatch(request)
            gate.open()
        }
        #expect(world.journal.count("driver destroy") == 1)
        #expect(world.journal.count("Instance.destroy") == 1)
        #expect(world.metrics.operations.value("terminate_instance", "failure") == 0)
    }

    @Test func `a delete that fails ends in error, and the next one succeeds`() async throws {
        let world = try World()
        let request = try world.message("terminate_instance")
        let uuid = try request.instance.uuid
        world.driver.behaviour["destroy"] = {
            throw DriverError(tenantMessage: "the machine does not end", fault: .host)
        }
        let runners = Task { await world.manager.runners.run() }
        _ = try await world.endpoint.dispatch(request)
        try await world.settle()
        #expect(world.rows.row(uuid)?.states == ["error", "null"])
        // A port must not be used by two guests, but this one's machine is not known to run.
        #expect(world.journal.count("network deallocate") == 1)
        world.driver.behaviour["destroy"] = nil
        _ = try await world.endpoint.dispatch(request)
        try await world.settle()
        #expect(world.rows.row(uuid)?.isDeleted == true)
        world.manager.runners.close()
        await runners.value
    }

    @Test func `what comes after the end is answered, and a server is not left in a task`() async throws {
        let world = try World()
        world.manager.runners.close()
        let stop = try world.message("stop_instance")
        let uuid = try stop.instance.uuid
        let failure = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(stop) }
        #expect(failure?.message.contains("shutting down") == true)
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
        #expect(world.rows.finishedEvents.last?.message?.contains("shutting down") == true)
        let build = try world.message("build_and_run_instance")
        _ = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(build) }
        #expect(world.rows.casts.map(\.method) == ["build_instances"])
    }

    @Test func `a stop as a call waits for its end and throws its failure`() async throws {
        let world = try World()
        var request = try world.message("stop_instance")
        request.isCall = true
        let stop = request
        let uuid = try stop.instance.uuid
        world.driver.set(.running, of: uuid)
        try await world.running {
            _ = try await world.endpoint.dispatch(stop)
            #expect(world.rows.row(uuid)?.states == ["stopped", "null"])
            world.rows.set("task_state", "rebuilding", of: uuid)
            let failure = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(stop) }
            #expect(failure?.className == "UnexpectedTaskStateError")
            // The task is somebody else's.
            #expect(world.rows.row(uuid)?.states == ["stopped", "rebuilding"])
        }
    }

    @Test func `the end of the service hands an unfinished build on`() async throws {
        let world = try World()
        let build = try world.message("build_and_run_instance")
        let gate = Gate()
        world.driver.behaviour["spawn"] = { try await gate.wait() }
        let runners = Task { await world.manager.runners.run() }
        _ = try await world.endpoint.dispatch(build)
        try await eventually("the spawn") { world.journal.count("driver spawn") == 1 }
        runners.cancel()
        await runners.value
        #expect(world.rows.casts.map(\.method) == ["build_instances"])
        #expect(world.journal.count("driver destroy") == 1)
    }

    @Test func `a limit is kept, and a cancelled wait takes no place`() async throws {
        let limit = ConcurrencyLimit(1)
        let gate = Gate()
        let journal = Journal()
        let first = Task {
            try await limit.withSlot {
                journal.note("first")
                try await gate.wait()
            }
        }
        try await eventually("the first") { journal.count("first") == 1 }
        let cancelled = Task { try await limit.withSlot { journal.note("cancelled") } }
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        let last = Task { try await limit.withSlot { journal.note("last") } }
        gate.open()
        try await first.value
        try await last.value
        #expect(journal.lines == ["first", "last"])
    }
}
