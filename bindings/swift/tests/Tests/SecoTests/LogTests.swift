import Foundation
import Seco
import SecoServers
import XCTest

/// What a client tells of its work.
final class LogTests: XCTestCase {
    private final class Kept: ClientLog, @unchecked Sendable {
        private let lock = NSLock()
        private var all: [String] = []

        func log(level: LogLevel, name: String, text: String) {
            lock.lock()
            defer { lock.unlock() }
            all.append("\(level) \(name)")
        }

        func told() -> [String] {
            lock.lock()
            defer { lock.unlock() }
            return all
        }
    }

    func testWhatAClientDoesIsToldInOrder() async throws {
        let cluster = try Cluster(model: "mlp", servers: 2)
        defer { cluster.close() }
        let kept = Kept()
        let client = try await SecoClient.connect(config: ClientConfig(deployment: cluster.deployment), log: kept)
        _ = try await client.infer(try Digits().small[0])
        try client.networkChanged()
        await client.shutdown()
        let expected = ["info connected", "info session_opened", "debug answered", "debug network_changed", "debug closed"]
        XCTAssertEqual(kept.told(), expected)
    }
}
