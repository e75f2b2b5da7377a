import Foundation
import Seco
import SecoServers
import XCTest

/// What a package sees of the vectors of all languages (`sdk/core/tests/vectors/README.md`).
final class VectorsTests: XCTestCase {
    private struct Deployments: Decodable {
        let good: [Deployment]
        let bad: [Deployment]

        /// Its own text, or another's with the first of each pair replaced by the second, once.
        func text(_ entry: Deployment) throws -> String {
            if let lines = entry.text { return lines.joined(separator: "\n") }
            var text = try text(XCTUnwrap(good.first { $0.name == entry.of }))
            for edit in try XCTUnwrap(entry.edits) {
                let place = try XCTUnwrap(text.range(of: edit[0], options: .literal), edit[0])
                text.replaceSubrange(place, with: edit[1])
            }
            return text
        }
    }

    private struct Deployment: Decodable {
        let name: String
        let text: [String]?
        let of: String?
        let edits: [[String]]?
        let at: String?
        let problem: String?
        let error: Int
    }

    private struct Sessions: Decodable {
        let good: [Session]
        let bad: [Session]
    }

    private struct Session: Decodable {
        let name: String
        let blob: String?
        let file: String?
    }

    private var folder: URL { URL(fileURLWithPath: setting("SECO_VECTORS")) }

    private func read<T: Decodable>(_ name: String) throws -> T {
        try JSONDecoder().decode(T.self, from: Data(contentsOf: folder.appendingPathComponent("wire-2/\(name)")))
    }

    /// The failure of connecting. Where nobody is, it is tried for as long as it may be.
    private func failure(_ deployment: String) async throws -> SecoError? {
        do {
            let config = ClientConfig(deployment: deployment, connectTimeoutMs: 500, transport: .tcp)
            try await SecoClient.connect(config: config).shutdown()
            return nil
        } catch let failure as SecoError {
            return failure
        }
    }

    func testAGoodDeploymentFileLeadsToAnAddressWhereNobodyIs() async throws {
        let file: Deployments = try read("deployment.json")
        XCTAssertGreaterThan(file.good.count, 5)
        for entry in file.good {
            let failure = try await failure(file.text(entry))
            XCTAssertEqual(failure?.code, entry.error, entry.name)
        }
    }

    func testABadDeploymentFileIsRefusedWhereItIsWrong() async throws {
        let file: Deployments = try read("deployment.json")
        XCTAssertGreaterThan(file.bad.count, 60)
        for entry in file.bad {
            let failure = try await failure(file.text(entry))
            XCTAssertEqual(failure?.code, entry.error, entry.name)
            guard case .InvalidConfiguration(let told) = failure else { continue }
            let (place, problem) = (try XCTUnwrap(entry.at), try XCTUnwrap(entry.problem))
            XCTAssert(told.contains("deployment, \(place): "), "\(entry.name): \(told)")
            XCTAssert(problem.isEmpty || told.contains(problem), "\(entry.name): \(told)")
        }
    }

    func testANewSessionTakesThePlaceOfOneThatIsOldDamagedOrOtherServers() async throws {
        let cluster = try Cluster(model: "mlp", servers: 2)
        defer { cluster.close() }
        let (sessions, digit) = (try read("session.json") as Sessions, try Digits().small[0])
        XCTAssertGreaterThan(sessions.bad.count, 10)
        var expected: Prediction?
        for entry in sessions.bad + sessions.good {
            let text = try entry.blob ?? String(contentsOf: folder.appendingPathComponent(XCTUnwrap(entry.file)), encoding: .utf8)
            let kept = bytes(text)
            let store = Kept(kept)
            let config = ClientConfig(deployment: cluster.deployment)
            try await SecoClient.connect(config: config, store: store).shutdown()
            let client = try await SecoClient.connect(config: config, store: store)
            let prediction = try await client.infer(digit)
            XCTAssertEqual(prediction, expected ?? prediction, entry.name)
            expected = prediction
            await client.shutdown()
            XCTAssertNotEqual(try store.load(), kept, entry.name)
            XCTAssertEqual(store.saves, 1, "\(entry.name): the new one is resumed")
        }
    }

    private func bytes(_ text: String) -> Data {
        let digits = text.compactMap(\.hexDigitValue)
        return Data(stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) })
    }
}

/// Counts what is saved.
private final class Kept: SessionStore, @unchecked Sendable {
    private let lock = NSLock()
    private var saved: Data
    private var count = 0

    init(_ session: Data) { saved = session }

    var saves: Int { lock.withLock { count } }

    func load() throws -> Data? { lock.withLock { saved } }

    func save(session: Data) throws {
        lock.withLock {
            saved = session
            count += 1
        }
    }
}
