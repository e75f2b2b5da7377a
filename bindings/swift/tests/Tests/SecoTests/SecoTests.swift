import Foundation
import Seco
import SecoServers
import XCTest

/// The package against real servers.
final class SecoTests: XCTestCase {
    private static let cluster = try! Cluster()
    private let digits = try! Digits()

    override class func tearDown() {
        cluster.close()
    }

    private func client(_ change: (ClientConfig) -> ClientConfig = { $0 }) async throws -> SecoClient {
        try await SecoClient.connect(config: change(ClientConfig(deployment: Self.cluster.deployment)))
    }

    private func code(_ call: () async throws -> Void) async -> Int {
        do {
            try await call()
        } catch let error as SecoError {
            return error.code
        } catch {
            XCTFail("\(error)")
        }
        return 0
    }

    func testRealServersPassTheCasesThatHoldOfThem() async throws {
        let real = try CasesTests.all().filter(\.real)
        XCTAssertGreaterThan(real.count, 5)
        for one in real {
            let client = try await client { ClientConfig(deployment: $0.deployment, keepSent: one.keepSent) }
            try await one.run(client, digits: digits.all)
            await client.shutdown()
        }
    }

    func testTwentyDigitsAreRightAndEqualToTheTrainedNetworksChoice() async throws {
        let client = try await client()
        let expected = try digits.expected()
        for (index, digit) in digits.all.enumerated() {
            let prediction = try await client.infer(digit)
            XCTAssertEqual(Int(prediction.label), digits.labels[index])
            let best = prediction.logits.indices.max { prediction.logits[$0] < prediction.logits[$1] }
            XCTAssertEqual(best, Int(prediction.label))
            if index < expected.count, let expected = expected[index] { XCTAssertEqual(best, expected) }
        }
        let known = expected.compactMap { $0 }.count
        print(known == 0 ? "SKIPPED expected logits: the models' outputs are not here" : "\(known) expected")
        XCTAssertEqual(client.model().inputLen, 784)
        XCTAssertGreaterThan(client.lastCost().bytesUp, 784)
    }

    func testAnAnswerIsReadAsNumbersAndAClassWithItsName() async throws {
        let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
        let classes = "classes = [" + names.map { "\"\($0)\"" }.joined(separator: ", ") + "]"
        let client = try await client {
            ClientConfig(deployment: $0.deployment.replacingOccurrences(
                of: "[[model.outputs]]", with: "[[model.outputs]]\n\(classes)"))
        }
        let prediction = try await client.infer(digits.all[0])
        let answers = client.answers(prediction: prediction)
        XCTAssertEqual(answers.count, 1)
        let answer = try XCTUnwrap(answers.first)
        XCTAssertEqual(answer.kind, .classes)
        XCTAssertEqual(answer.label, prediction.label)
        XCTAssertEqual(answer.className, names[digits.labels[0]])
        XCTAssertEqual(answer.values.count, Int(client.model().values))
        // The same order, and one scale for all.
        let scales = zip(prediction.logits, answer.values).filter { $0.0 != 0 }.map { $0.1 / Double($0.0) }
        XCTAssert(scales.allSatisfy { $0 > 0 && abs($0 / scales[0] - 1) < 1e-9 }, "\(scales)")
        XCTAssertEqual(answer.last, .none)
        XCTAssertEqual(answer.values, answer.finished)
        XCTAssertNil(answer.probabilities)
    }

    func testWhatTheNetworkDoesLastIsDoneOnTheDevice() async throws {
        let client = try await client {
            let softmax = $0.deployment.replacingOccurrences(of: "last = \"none\"", with: "last = \"softmax\"")
            XCTAssertNotEqual($0.deployment, softmax)
            return ClientConfig(deployment: softmax)
        }
        let prediction = try await client.infer(digits.all[0])
        let answer = try XCTUnwrap(client.answers(prediction: prediction).first)
        XCTAssertEqual(answer.last, .softmax)
        let probabilities = try XCTUnwrap(answer.probabilities)
        XCTAssertEqual(probabilities.reduce(0, +), 1, accuracy: 1e-9)
        XCTAssertEqual(probabilities, answer.finished)
        XCTAssertEqual(probabilities.max(), probabilities[Int(prediction.label)])
        XCTAssertNotEqual(answer.values, answer.finished)
    }

    func testRealNumbersBecomeTheValuesThatTheDeploymentSays() async throws {
        let table = "[model.quantise]\nscale = [\(1.0 / 255)]\noffset = [0]\n\n[[model.outputs]]"
        let client = try await client {
            ClientConfig(deployment: $0.deployment.replacingOccurrences(of: "[[model.outputs]]", with: table))
        }
        let digit = digits.all[0]
        var reals = digit.map { Float($0) / 255 }
        let (bytes, numbers) = (try await client.infer(digit), try await client.inferReals(reals))
        XCTAssertEqual(bytes, numbers)
        reals[0] = 1.5
        let cut = try await client.inferReals(reals)
        XCTAssert(cut.outsideCalibration)
        let wrong = [Float.nan] + reals.dropFirst()
        let code = await code { _ = try await client.inferReals(wrong) }
        XCTAssertEqual(code, 1)
    }

    func testManyAtATimeInTheirOrder() async throws {
        let predictions = try await client().inferMany(Array(digits.all[..<6]))
        XCTAssertEqual(predictions.map { Int($0.label) }, Array(digits.labels[..<6]))
    }

    func testACancelledTaskCancelsItsRequestAndTheNextOneWorks() async throws {
        let (client, digits) = (try await client(), digits)
        let (sent, tell) = AsyncStream<Void>.makeStream()
        let task = Task { _ = try await client.infer(digits.all[0]) { if $0 == .sent { tell.yield() } } }
        for await _ in sent { break }
        await cancelled(task)
        let next = try await client.infer(digits.all[1])
        XCTAssertEqual(Int(next.label), digits.labels[1])
    }

    func testManyRequestsAndConnectingAreCancelledTooWithTheirTask() async throws {
        let (client, digits) = (try await client(), digits)
        let inputs = (0..<500).map { digits.all[$0 % 20] }
        let many = Task { _ = try await client.inferMany(inputs) }
        try await Task.sleep(nanoseconds: 200_000_000)
        await cancelled(many)
        let next = try await client.infer(digits.all[1])
        XCTAssertEqual(Int(next.label), digits.labels[1])

        // Nobody answers at this address, which QUIC only notices by the time.
        let absent = Self.cluster.deployment.replacingOccurrences(
            of: "127\\.0\\.0\\.1:[0-9]+", with: "127.0.0.1:9", options: .regularExpression)
        let config = ClientConfig(deployment: absent, connectTimeoutMs: 60_000, transport: .quic)
        let connecting = Task { _ = try await SecoClient.connect(config: config) }
        try await Task.sleep(nanoseconds: 200_000_000)
        await cancelled(connecting)
    }

    /// Cancels the task, which ends at once.
    private func cancelled(_ task: Task<Void, any Error>) async {
        let start = Date()
        task.cancel()
        do {
            try await task.value
            XCTFail("not cancelled")
        } catch {
            XCTAssert(error is CancellationError, "\(error)")
        }
        XCTAssertLessThan(Date().timeIntervalSince(start), 2)
    }

    func testAnInputBeyondTheCalibratedRangeIsTold() async throws {
        let (known, narrow) = ("calibrated = [0, 255]\n", "calibrated = [1, 255]\n")
        XCTAssert(Self.cluster.deployment.contains(known), Self.cluster.deployment)
        let usual = try await client().infer(digits.all[0])
        XCTAssertFalse(usual.outsideCalibration)
        let narrowed = try await client {
            ClientConfig(deployment: $0.deployment.replacingOccurrences(of: known, with: narrow))
        }
        let outside = try await narrowed.infer(digits.all[0])
        XCTAssert(outside.outsideCalibration)
        XCTAssertEqual(Int(outside.label), digits.labels[0])
        let within = try await narrowed.infer(Data(repeating: 1, count: 784))
        XCTAssertFalse(within.outsideCalibration)
        // Files of earlier versions do not tell the range.
        let older = try await client {
            ClientConfig(deployment: $0.deployment.replacingOccurrences(of: known, with: ""))
        }
        let unknown = try await older.infer(Data(repeating: 255, count: 784))
        XCTAssertFalse(unknown.outsideCalibration)
    }

    func testAWrongInputSizeIsRefusedHere() async throws {
        let client = try await client()
        let code = await code { _ = try await client.infer(Data(count: 100)) }
        XCTAssertEqual(code, 2)
        let next = try await client.infer(digits.all[0])
        XCTAssertEqual(Int(next.label), digits.labels[0])
    }

    func testSettingsAndPixelsAreChecked() async throws {
        let nonsense = await code { _ = try await SecoClient.connect(config: ClientConfig(deployment: "nonsense")) }
        XCTAssertEqual(nonsense, 1)
        let pixels = await code { _ = try rgbPlanes(interleaved: Data([1, 2]), channels: 3) }
        XCTAssertEqual(pixels, 1)
        XCTAssertEqual(try rgbPlanes(interleaved: Data([1, 2, 3, 4, 5, 6]), channels: 3), Data([1, 4, 2, 5, 3, 6]))
    }

    func testWhatLeavesTheDeviceIsNotTheDigit() async throws {
        let client = try await client { ClientConfig(deployment: $0.deployment, keepSent: true) }
        _ = try await client.infer(digits.all[0])
        let first = client.lastSent()
        _ = try await client.infer(digits.all[0])
        XCTAssertEqual(first?.count, 784)
        XCTAssertNotEqual(first, digits.all[0])
        XCTAssertNotEqual(first, client.lastSent())
    }

    func testTCPInsteadOfQUIC() async throws {
        let client = try await client { ClientConfig(deployment: $0.deployment, transport: .tcp) }
        XCTAssertEqual(client.transport(), .tcp)
        let prediction = try await client.infer(digits.all[3])
        XCTAssertEqual(Int(prediction.label), digits.labels[3])
    }

    func testRequestsGoOnAfterAChangeOfNetwork() async throws {
        let client = try await client()
        _ = try await client.infer(digits.all[0])
        try client.networkChanged()
        let prediction = try await client.infer(digits.all[4])
        XCTAssertEqual(Int(prediction.label), digits.labels[4])
        await client.shutdown()
        let (code, digit) = (await code { _ = try await client.infer(self.digits.all[0]) }, 10)
        XCTAssertEqual(code, digit)
    }

    func testASessionGoesOnInAnotherProcessWithoutSealing() throws {
        let session = Self.cluster.folder.appendingPathComponent("session").path
        let (opened, resumed) = (try anotherProcess(session), try anotherProcess(session))
        print("bytes up of connecting: \(opened[0]) new, \(resumed[0]) resumed")
        XCTAssertEqual([opened[1], resumed[1]], [digits.labels[5], digits.labels[5]])
        // Three sealed keys have 3.5 KB.
        XCTAssertGreaterThan(opened[0] - resumed[0], 3000)
        let mode = try FileManager.default.attributesOfItem(atPath: session)[.posixPermissions] as? Int
        XCTAssertEqual(mode, 0o600)
    }

    func testTwoProcessesUseOneSessionAtTheSameTime() async throws {
        let session = Self.cluster.folder.appendingPathComponent("shared").path
        for _ in 0..<2 {
            async let one = anotherProcess(session)
            async let other = anotherProcess(session)
            let labels = try await [one[1], other[1]]
            XCTAssertEqual(labels, [digits.labels[5], digits.labels[5]])
        }
    }

    /// Bytes up of connecting, and the label.
    private func anotherProcess(_ session: String) throws -> [Int] {
        let deployment = Self.cluster.folder.appendingPathComponent("copy.toml")
        try Self.cluster.deployment.write(to: deployment, atomically: true, encoding: .utf8)
        let (process, output) = (Process(), Pipe())
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
            .appendingPathComponent("OneRequest")
        process.arguments = [deployment.path, session]
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        XCTAssertEqual(process.terminationStatus, 0)
        return text.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
    }

    func testASessionsAgeIsASetting() async {
        let code = await code { _ = try await client { ClientConfig(deployment: $0.deployment, sessionMaxAgeDays: 0) } }
        XCTAssertEqual(code, 1)
    }

    func testAFileMayNameSeveralModels() async throws {
        // The same model by two names, and with names of classes by the second.
        let one = Self.cluster.deployment
        let start = try XCTUnwrap(one.range(of: "[model]")).lowerBound
        let end = try XCTUnwrap(one.range(of: "[[servers]]")).lowerBound
        let listed = one[start..<end].replacingOccurrences(of: "[model.", with: "[models.")
        let named = ["first", "second"].map {
            listed.replacingOccurrences(of: "[model]", with: "[[models]]\nname = \"\($0)\"")
        }
        let classes = "classes = [" + (0..<10).map { "\"class \($0)\"" }.joined(separator: ", ") + "]"
        let second = named[1].replacingOccurrences(of: "[[models.outputs]]", with: "[[models.outputs]]\n\(classes)")
        let both = one.replacingOccurrences(of: String(one[start..<end]), with: named[0] + second)
            .replacingOccurrences(of: "version = 3", with: "version = 5")
        for (name, expected) in [("first", nil), ("second", "class \(digits.labels[3])")] {
            let client = try await SecoClient.connect(config: ClientConfig(deployment: both, model: name))
            let answers = client.answers(prediction: try await client.infer(digits.all[3]))
            XCTAssertEqual(answers.first?.className, expected, name)
        }
        for (text, name) in [(both, nil), (both, "third"), (both, ""), (one, "first")] as [(String, String?)] {
            let told = await code {
                _ = try await SecoClient.connect(config: ClientConfig(deployment: text, model: name))
            }
            XCTAssertEqual(told, 1, name ?? "none")
        }
    }

    func testServersThatAreGoneAreAnErrorInTime() async throws {
        let short = try Cluster(model: "mlp", servers: 2)
        let config = ClientConfig(deployment: short.deployment, connectTimeoutMs: 3000, requestTimeoutMs: 6000)
        let (client, digit) = (try await SecoClient.connect(config: config), digits.small[0])
        _ = try await client.infer(digit)
        short.close()
        let start = Date()
        let (seen, tell) = AsyncStream<RequestProgress>.makeStream()
        let lost = await code { _ = try await client.infer(digit) { tell.yield($0) } }
        XCTAssert([3, 4].contains(lost), "\(lost)")
        XCTAssertLessThan(Date().timeIntervalSince(start), 8)
        // The gateway is waited for.
        tell.finish()
        let told = await seen.reduce(into: [RequestProgress]()) { $0.append($1) }
        XCTAssert(told.contains(.waiting(server: 0)), "\(told)")
        let absent = await code { _ = try await SecoClient.connect(config: config) }
        XCTAssert([3, 4].contains(absent), "\(absent)")
    }

    func testAThousandCallsKeepNeitherMemoryNorFiles() async throws {
        let small = try Cluster(model: "mlp", servers: 2)
        let client = try await SecoClient.connect(config: ClientConfig(deployment: small.deployment))
        let inputs = Array(digits.small[..<8])
        for _ in 0..<25 { _ = try await client.inferMany(inputs) }
        let (memory, files, start) = (try resident(), try openFiles(), Date())
        for _ in 0..<125 { _ = try await client.inferMany(inputs) }
        let seconds = Date().timeIntervalSince(start)
        print("1000 calls in \(Int(seconds * 1000)) ms, memory \(memory) to \(try resident())")
        XCTAssertLessThanOrEqual(try openFiles(), files + 2)
        // Less than 4 KB a call.
        XCTAssertLessThan(try resident(), memory + (4 << 20))
        small.close()
    }

    private func resident() throws -> Int {
        let fields = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
        return Int(fields[1])! * 4096
    }

    private func openFiles() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
    }
}
