import Foundation
import Seco
import SecoServers
import SecoTesting
import XCTest

/// The cases of all languages against the fake. `SecoTests` has them against real servers.
final class CasesTests: XCTestCase {
    static func all() throws -> [Case] {
        try Case.all(Data(contentsOf: URL(fileURLWithPath: setting("SECO_CASES"))))
    }

    private func run(_ one: Case) async throws {
        let client = FakeSecoClient(one.replies, inputBits: one.inputBits, keepSent: one.keepSent)
        try await one.run(client, digits: Digits().all)
        if client.repliesLeft != 0 { throw Case.Wrong(what: "\(one.name): \(client.repliesLeft) replies are left") }
    }

    func testTheFakePassesAllCases() async throws {
        let all = try Self.all()
        XCTAssertGreaterThan(all.count, 10)
        for one in all { try await run(one) }
    }

    func testAWrongCaseFails() async throws {
        func passes(_ calls: String...) async -> Bool {
            let replies = #"[{"label": 7, "progress": ["sent"]}, {"error": 5, "retry_after_ms": 9}]"#
            let one = #"{"name": "one", "real": false, "replies": \#(replies), "calls": [\#(calls.joined(separator: ", "))]}"#
            do {
                for one in try Case.all(Data(#"{"about": "", "cases": [\#(one)]}"#.utf8)) { try await run(one) }
                return true
            } catch {
                XCTAssert(error is Case.Wrong, "\(error)")
                return false
            }
        }
        let good = #"{"call": "infer", "digit": 0, "label": 7}"#
        let busy = #"{"call": "infer", "digit": 0, "error": 5, "retry_after_ms": 9}"#
        let passed = await passes(good, busy)
        XCTAssert(passed)
        for wrong in [
            #"{"call": "infer", "digit": 0, "label": 8}"#,
            #"{"call": "infer", "digit": 0}"#,
            #"{"call": "infer", "digit": 0, "error": 5}"#,
            #"{"call": "infer", "digit": 0, "label": 7, "progress": ["running"]}"#,
            #"{"call": "infer", "digit": 0, "label": 7, "progress_begins": ["sent", "sent"]}"#,
            #"{"call": "infer", "digit": 0, "label": 7, "answer": 1}"#,
            #"{"call": "infer_many", "digits": [0], "labels": [8]}"#,
        ] {
            let passed = await passes(wrong, busy)
            XCTAssertFalse(passed, wrong)
        }
        for wrong in [
            good,
            #"{"call": "infer", "digit": 0, "error": 4}"#,
            #"{"call": "infer", "digit": 0, "error": 5, "retry_after_ms": 8}"#,
            #"{"call": "infer", "digit": 0, "error": 5, "got": 1}"#,
            #"{"call": "infer_many", "digits": [0], "labels": [7]}"#,
        ] {
            let passed = await passes(good, wrong)
            XCTAssertFalse(passed, wrong)
        }
        let left = await passes(good)
        XCTAssertFalse(left, "a reply is left")
        for wrong in [
            #"{"call": "model", "values": 9, "input_len": 784}"#,
            #"{"call": "model", "values": 10, "input_len": 784, "input_bits": 9}"#,
            #"{"call": "transport", "is": "tcp"}"#,
            #"{"call": "last_sent", "length": 784}"#,
            #"{"call": "last_cost", "is": {"bytes_up": 1}}"#,
            #"{"call": "last_cost", "is": {"bytes": 0}}"#,
            #"{"call": "last_cost"}"#,
            #"{"call": "total_cost", "at_least": {"bytes_up": 1}}"#,
            #"{"call": "probe", "up": 1, "down": 1, "error": 10}"#,
            #"{"call": "probe", "up": 1, "down": 65536}"#,
            #"{"call": "close", "error": 10}"#,
            #"{"call": "invert"}"#,
            #"{"digit": 0}"#,
        ] {
            let passed = await passes(wrong, good, busy)
            XCTAssertFalse(passed, wrong)
        }
    }

    /// What the cases do not tell.
    func testAFakeHasTheAppsModel() async throws {
        let client = FakeSecoClient(
            [.logits([-5, 9], outsideCalibration: true), .label(0)], inputLen: 3, values: 2, classes: ["no", "yes"])
        let prediction = try await client.inferReals([0.5, 1, 2])
        XCTAssertEqual(prediction, Prediction(label: 1, logits: [-5, 9], outsideCalibration: true))
        XCTAssertEqual(client.answers(prediction: prediction).first?.className, "yes")
        do {
            _ = try await client.inferReals([0.5, .nan, 2])
            XCTFail("no number")
        } catch SecoError.InvalidConfiguration {}
        XCTAssertEqual(client.repliesLeft, 1)
        try client.networkChanged()
        await client.shutdown()
        XCTAssertEqual(client.networkChanges, 1)
        XCTAssert(client.isClosed)
    }

    func testValuesOfMoreBitsAreTwoBytesAndOneNumber() async throws {
        let client = FakeSecoClient(inputLen: 6, inputBits: 12)
        XCTAssertEqual(client.model().inputBits, 12)
        _ = try await client.infer(Data(count: 6))
        _ = try await client.inferReals([0, 1, 2])
        for wrong in [3, 12] {
            do {
                _ = try await client.infer(Data(count: wrong))
                XCTFail("\(wrong) bytes")
            } catch SecoError.WrongInputSize {}
        }
        do {
            _ = try await client.inferReals([0, 1, 2, 3, 4, 5])
            XCTFail("6 numbers")
        } catch SecoError.WrongInputSize {}
    }

    func testManyAreAnsweredInTheirOrderAndCancelledTogether() async throws {
        let slowFirst = (0..<9).map { FakeSecoClient.Reply.label($0, delay: 0.003 * Double(9 - $0)) }
        let client = FakeSecoClient(slowFirst + [.label(1, delay: 60), .label(2, delay: 60)])
        let predictions = try await client.inferMany([Data](repeating: Data(count: 784), count: 9))
        XCTAssertEqual(predictions.map(\.label), Array(0..<9))
        let task = Task { try await client.inferMany([Data(count: 784), Data(count: 784)]) }
        while client.requestsWaiting < 2 { await Task.yield() }
        task.cancel()
        do {
            _ = try await task.value
            XCTFail("answered")
        } catch is CancellationError {}
        XCTAssertEqual(client.requestsWaiting, 0)
    }
}
