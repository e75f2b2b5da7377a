import DemoLogic
import Foundation
import Seco
import SecoServers
import XCTest

/// The view model against real servers.
@MainActor
final class ClusterTests: XCTestCase {
    func testDrawnDigitsAreRecognisedAndWhatLeavesIsNoise() async throws {
        let cluster = try Cluster()
        defer { cluster.close() }
        let (deployment, session) = (cluster.deployment, cluster.folder.appendingPathComponent("session").path)
        let model = DigitViewModel(pause: 0.02) {
            try await SecoClassifier(deployment: deployment, session: FileSessionStore(path: session))
        }
        model.start()
        try await until { model.screen.status == .ready }

        var sent: [[UInt8]] = []
        for (digit, strokes) in drawings {
            model.clear()
            draw(strokes, on: model)
            try await until { model.screen.costs != nil }
            XCTAssertEqual(model.screen.status, .answer(digit))
            sent.append(try XCTUnwrap(model.screen.sent))
            XCTAssertEqual(sent.last?.count, 784)
            let mean = sent.last!.reduce(0) { $0 + Int($1) } / 784
            // Of 784 random bytes within 10 standard deviations; a drawing is below 60.
            XCTAssert((101...154).contains(mean), "\(mean)")
            let costs = try XCTUnwrap(model.screen.costs)
            print("bytes up: private \(costs.private.bytesUp), plain \(costs.plain.bytesUp)")
            XCTAssertGreaterThanOrEqual(costs.plain.bytesUp, 784)
            XCTAssertGreaterThanOrEqual(costs.private.bytesUp, 784)
        }
        XCTAssertEqual(Set(sent).count, sent.count)

        // Away from the first network, and while a request runs.
        model.networkChanged()
        draw(drawings[0].strokes, on: model)
        model.networkChanged()
        try await until { if case .answer = model.screen.status { return true } else { return false } }

        // The app starts again, with the session that it kept.
        await model.close()
        let again = DigitViewModel(pause: 0.02) {
            // Less patient than the app, for its end is waited for.
            let config = ClientConfig(deployment: deployment, requestTimeoutMs: 6000, keepSent: true)
            return try SecoClassifier(
                await SecoClient.connect(config: config, store: FileSessionStore(path: session)))
        }
        draw(drawings[0].strokes, on: again)
        try await until { again.screen.costs != nil }
        XCTAssertEqual(again.screen.status, .answer(drawings[0].digit))

        cluster.close()
        again.strokeEnded()
        try await until(60) { again.screen.status.isFailure }
        XCTAssertEqual(again.screen.drawing.isEmpty, false)
    }

    func testASessionOfAnotherClusterIsReplaced() async throws {
        let (first, second) = (try Cluster(), try Cluster())
        defer { first.close(); second.close() }
        let session = first.folder.appendingPathComponent("session").path
        for cluster in [first, second] {
            let classifier = try await SecoClassifier(
                deployment: cluster.deployment, session: FileSessionStore(path: session)
            )
            var drawing = Drawing()
            for stroke in drawings[0].strokes { drawing.add(stroke) }
            let digit = try await classifier.classify(drawing.pixels()) { _ in }
            XCTAssertEqual(digit, drawings[0].digit)
            await classifier.close()
        }
    }

    func testADeploymentThatIsNoneIsSaid() async throws {
        let model = DigitViewModel { try await SecoClassifier(deployment: "nonsense") }
        model.start()
        try await until { model.screen.status != .connecting }
        XCTAssertEqual(model.screen.status, .failed(.noDeployment))
    }
}
