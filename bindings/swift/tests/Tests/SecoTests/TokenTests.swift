import Foundation
import Seco
import SecoServers
import XCTest

/// A gateway that serves only who shows a token.
final class TokenTests: XCTestCase {
    func testWhatIsWrongWithATokenIsToldAndTheRightOneIsServed() async throws {
        let cluster = try Cluster(model: "mlp", servers: 2, guarded: true)
        defer { cluster.close() }
        let config = ClientConfig(deployment: cluster.deployment)
        func failure(_ token: String?) async throws -> SecoError {
            do {
                _ = try await SecoClient.connect(config: config, token: token)
            } catch let error as SecoError {
                return error
            }
            throw NSError(domain: "it was served", code: 1)
        }
        let unknown = "seco_" + String(repeating: "0", count: 48)
        for (token, expected) in [(nil, TokenProblem.missing), (unknown, .invalid)] {
            let told = try await failure(token)
            guard case .TokenRefused(let problem, let retryAfter, _) = told else { return XCTFail("\(told)") }
            XCTAssertEqual(problem, expected)
            XCTAssertEqual(retryAfter, 0)
            XCTAssertEqual(told.code, 11)
        }
        let told = try await failure("seco_" + String(repeating: "5", count: 40))
        XCTAssertEqual(told.code, 1)
        XCTAssertFalse("\(told)".contains("555"), "a secret is not shown")
        let client = try await SecoClient.connect(config: config, token: cluster.token)
        let prediction = try await client.infer(try Digits().small[0])
        XCTAssertEqual(prediction.logits.count, 10)

        // Its deployment file names no owner.
        do {
            _ = try await fetchDeploymentUpdate(config: config)
            XCTFail("nobody may replace that file")
        } catch let error as SecoError {
            XCTAssertEqual(error.code, 1)
        }
    }
}
