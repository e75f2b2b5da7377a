import DemoLogic
import Foundation
import XCTest

/// The view model with a connection that does what the test says.
@MainActor
final class DigitViewModelTests: XCTestCase {
    func testTheAnswerIsShownBeforeTheComparison() async throws {
        let servers = Scripted()
        let model = DigitViewModel(pause: 0) { servers }
        var seen: [DigitScreen] = []
        model.changed = { seen.append($0) }
        draw(drawings[0].strokes, on: model)
        try await until { servers.waiting == 1 }
        XCTAssertEqual(model.screen.status, .running)
        servers.tell(2)
        try await until { model.screen.status == .queued(2) }
        servers.tell(nil)
        try await until { model.screen.status == .running }
        servers.answer(.success(5))
        try await until { model.screen.costs != nil }
        let answered = try XCTUnwrap(seen.first { $0.status == .answer(5) })
        XCTAssertNil(answered.costs)
        XCTAssertEqual(answered.sent, [1, 2, 3])
        XCTAssertEqual(model.screen.costs?.private.bytesUp, 1)
        XCTAssertEqual(model.screen.costs?.plain.bytesUp, 2)
    }

    func testAStrokeCancelsTheRequestAndItsLateProgressIsNotShown() async throws {
        let servers = Scripted()
        let model = DigitViewModel(pause: 0) { servers }
        draw(drawings[0].strokes, on: model)
        try await until { servers.waiting == 1 }
        model.strokeBegan(Point(x: 0, y: 0))
        servers.tell(7)
        try await until { servers.cancelled == 1 }
        try await Task.sleep(nanoseconds: 50_000_000)
        XCTAssertEqual(model.screen.status, .ready)
        model.strokeEnded()
        try await until { servers.waiting == 1 }
        servers.answer(.success(3))
        try await until { model.screen.status == .answer(3) }
        XCTAssertEqual(model.screen.drawing.strokes.count, 2)
    }

    func testClearEmptiesEverything() async throws {
        let servers = Scripted()
        let model = DigitViewModel(pause: 0) { servers }
        draw(drawings[0].strokes, on: model)
        try await until { servers.waiting == 1 }
        model.clear()
        try await until { servers.cancelled == 1 }
        try await until { model.screen.status == .ready }
        XCTAssert(model.screen.drawing.isEmpty)
        XCTAssertNil(model.screen.sent)
    }

    func testRetryConnectsAgainAndAsksAboutTheDrawing() async throws {
        let servers = Scripted()
        let attempts = Counter()
        let model = DigitViewModel(pause: 0) {
            if attempts.next() == 1 { throw ClassifierError(.noConnection) }
            return servers
        }
        draw(drawings[0].strokes, on: model)
        try await until { model.screen.status == .failed(.noConnection) }
        model.retry()
        try await until { servers.waiting == 1 }
        servers.answer(.failure(ClassifierError(.busy)))
        try await until { model.screen.status == .failed(.busy) }
        model.retry()
        try await until { servers.waiting == 1 }
        servers.answer(.success(8))
        try await until { model.screen.status == .answer(8) }
        XCTAssertEqual(attempts.next(), 3)
        await model.close()
        XCTAssertEqual(servers.closed, 1)
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

/// Answers when told.
private final class Scripted: Classifier, @unchecked Sendable {
    private let lock = NSLock()
    private var open: CheckedContinuation<Int, any Error>?
    private var progress: (@Sendable (Int?) -> Void)?
    private var counts = (cancelled: 0, closed: 0, ended: UInt64(0))

    private func locked<T>(_ body: () -> T) -> T {
        lock.lock()
        defer { lock.unlock() }
        return body()
    }

    var waiting: Int { locked { open == nil ? 0 : 1 } }
    var cancelled: Int { locked { counts.cancelled } }
    var closed: Int { locked { counts.closed } }

    func tell(_ ahead: Int?) { locked { progress }?(ahead) }

    func answer(_ result: Result<Int, any Error>) {
        locked { defer { open = nil }; return open }?.resume(with: result)
    }

    func classify(_ pixels: [UInt8], queued: @escaping @Sendable (Int?) -> Void) async throws -> Int {
        defer { locked { counts.ended = 1 } }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { next in locked { (open, progress) = (next, queued) } }
        } onCancel: {
            locked { counts.cancelled += 1 }
            answer(.failure(CancellationError()))
        }
    }

    func plainRequest() async throws { locked { counts.ended = 2 } }

    func lastCost() -> RequestCost {
        RequestCost(bytesUp: locked { counts.ended }, bytesDown: 0, packets: 0, cpuMicros: nil, wallMicros: 0)
    }

    func lastSent() -> [UInt8]? { [1, 2, 3] }
    func networkChanged() {}
    func close() async { locked { counts.closed += 1 } }
}
