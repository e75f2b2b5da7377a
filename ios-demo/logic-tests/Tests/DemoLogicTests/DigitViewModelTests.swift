import DemoLogic
import Foundation
import Seco
import SecoTesting
import XCTest

/// The view model with a client that does what the test says.
@MainActor
final class DigitViewModelTests: XCTestCase {
    private func model(_ client: FakeSecoClient) -> DigitViewModel {
        DigitViewModel(pause: 0) { try SecoClassifier(client) }
    }

    func testTheAnswerIsShownBeforeTheComparison() async throws {
        let cost = Cost(bytesUp: 900, bytesDown: 90, datagramsUp: 2, datagramsDown: 3, cpuUs: 4000, wallUs: 20_000)
        let client = FakeSecoClient(
            [.label(5, delay: 0.02, progress: [.sent, .queued(position: 3, waitMs: 900), .running], cost: cost)],
            keepSent: true)
        let model = model(client)
        var seen: [DigitScreen] = []
        model.changed = { seen.append($0) }
        draw(drawings[0].strokes, on: model)
        try await until { model.screen.costs != nil }
        // Two requests are ahead of the third.
        let told = seen.map(\.status)
        let order: [Status] = [.connecting, .running, .queued(2), .running, .answer(5)]
        XCTAssertEqual(told.enumerated().filter { $0 == 0 || told[$0 - 1] != $1 }.map(\.element), order)
        let answered = try XCTUnwrap(seen.first { $0.status == .answer(5) })
        XCTAssertNil(answered.costs)
        XCTAssertEqual(answered.sent?.count, 784)
        XCTAssertEqual(
            model.screen.costs?.private,
            RequestCost(bytesUp: 900, bytesDown: 90, packets: 5, cpuMicros: 4000, wallMicros: 20_000))
        XCTAssertEqual(model.screen.costs?.plain.bytesUp, 784)
    }

    func testAStrokeCancelsTheRequestAndItsLateProgressIsNotShown() async throws {
        let client = FakeSecoClient([.label(1, delay: 60, progress: [.queued(position: 8, waitMs: 9)]), .label(3)])
        let model = model(client)
        model.changed = { screen in
            guard screen.status == .running else { return }
            model.changed = nil
            Task {
                // Nothing else runs on this thread meanwhile, so what is told comes after the stroke.
                while client.requestsWaiting == 0 { usleep(1000) }
                model.strokeBegan(Point(x: 0, y: 0))
            }
        }
        draw(drawings[0].strokes, on: model)
        try await until { model.screen.drawing.strokes.count == 2 }
        try await until { client.requestsWaiting == 0 }
        try await Task.sleep(nanoseconds: 20_000_000)
        XCTAssertEqual(model.screen.status, .ready)
        model.strokeEnded()
        try await until { model.screen.status == .answer(3) }
    }

    func testClearEmptiesEverything() async throws {
        let client = FakeSecoClient([.label(1, delay: 60)], keepSent: true)
        let model = model(client)
        draw(drawings[0].strokes, on: model)
        try await until { client.requestsWaiting == 1 }
        model.clear()
        try await until { client.requestsWaiting == 0 && model.screen.status == .ready }
        XCTAssert(model.screen.drawing.isEmpty)
        XCTAssertNil(model.screen.sent)
    }

    func testRetryConnectsAgainAndAsksAboutTheDrawing() async throws {
        let client = FakeSecoClient([.failure(.Busy(retryAfterMs: 500)), .label(8)])
        let attempts = Counter()
        let model = DigitViewModel(pause: 0) {
            if attempts.next() == 1 { throw ClassifierError(.noConnection) }
            return try SecoClassifier(client)
        }
        draw(drawings[0].strokes, on: model)
        try await until { model.screen.status == .failed(.noConnection) }
        model.retry()
        try await until { model.screen.status == .failed(.busy) }
        model.networkChanged()
        XCTAssertEqual(client.networkChanges, 1)
        model.retry()
        try await until { model.screen.status == .answer(8) }
        XCTAssertEqual(attempts.next(), 3)
        await model.close()
        XCTAssert(client.isClosed)
    }

    func testEveryErrorBecomesAProblem() async throws {
        let problems: [(SecoError, Problem)] = [
            (.InvalidConfiguration(reason: ""), .noDeployment),
            (.WrongInputSize(expected: 1, got: 2, reason: ""), .noDeployment),
            (.Network(reason: ""), .noConnection), (.Timeout(reason: ""), .busy), (.Busy(retryAfterMs: 1), .busy),
            (.Refused(reason: ""), .other), (.UntrustedServer(reason: ""), .wrongServers),
            (.IncompatibleServer(reason: ""), .wrongServers), (.Storage(reason: ""), .other),
            (.Closed(reason: ""), .other), (.TokenRefused(problem: .missing, retryAfterS: 0, reason: ""), .other),
        ]
        let model = model(FakeSecoClient(problems.map { .failure($0.0) }))
        var failures: [Status] = []
        model.changed = { if $0.status.isFailure { failures.append($0.status) } }
        draw(drawings[0].strokes, on: model)
        for count in 1...problems.count {
            try await until { failures.count == count }
            model.retry()
        }
        XCTAssertEqual(failures, problems.map { .failed($0.1) })
    }

    func testADeploymentOfAnotherNetworkIsSaid() async throws {
        let model = model(FakeSecoClient(inputLen: 64))
        model.start()
        try await until { model.screen.status == .failed(.noDeployment) }
    }
}

private final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var count = 0

    func next() -> Int {
        lock.lock()
        defer { lock.unlock() }
        count += 1
        return count
    }
}
