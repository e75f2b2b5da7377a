import Foundation
import Seco

/// A client for an app's tests: it answers by script, without servers and without a network.
///
/// What differs from a real client: nothing is measured, so the cost is the script's; a request is made once, so an error
/// is told although a real client might have tried again; numbers need no `[model.quantise]`; and what was sent is bytes
/// that have to do with no input.
public final class FakeSecoClient: InferenceClient, @unchecked Sendable {
    /// What becomes of one inference.
    public struct Reply: Sendable {
        fileprivate let result: Result<[Int32]?, SecoError>
        fileprivate let label: UInt32
        fileprivate let delay: TimeInterval
        fileprivate let progress: [RequestProgress]
        fileprivate let cost: Cost?
        fileprivate let outsideCalibration: Bool

        private init(
            _ result: Result<[Int32]?, SecoError>, label: UInt32 = 0, delay: TimeInterval,
            progress: [RequestProgress], cost: Cost?, outsideCalibration: Bool = false
        ) {
            // As long as its nanoseconds are a number.
            (self.result, self.label, self.delay) = (result, label, min(max(0, delay), 1e9))
            (self.progress, self.cost, self.outsideCalibration) = (progress, cost, outsideCalibration)
        }

        /// An answer.
        ///
        /// - Parameters:
        ///   - label: the class.
        ///   - delay: seconds until it comes, after all progress was told.
        ///   - progress: what is told meanwhile.
        ///   - cost: what it costs; nil counts the bytes of input and answer, and the delay.
        public static func label(
            _ label: UInt32, delay: TimeInterval = 0, progress: [RequestProgress] = [.sent], cost: Cost? = nil,
            outsideCalibration: Bool = false
        ) -> Reply {
            Reply(
                .success(nil), label: label, delay: delay, progress: progress, cost: cost,
                outsideCalibration: outsideCalibration)
        }

        /// An answer of these integers, of which the largest is the label's.
        public static func logits(
            _ logits: [Int32], delay: TimeInterval = 0, progress: [RequestProgress] = [.sent], cost: Cost? = nil,
            outsideCalibration: Bool = false
        ) -> Reply {
            Reply(
                .success(logits), delay: delay, progress: progress, cost: cost,
                outsideCalibration: outsideCalibration)
        }

        /// No answer.
        public static func failure(
            _ error: SecoError, delay: TimeInterval = 0, progress: [RequestProgress] = [.sent], cost: Cost? = nil
        ) -> Reply {
            Reply(.failure(error), delay: delay, progress: progress, cost: cost)
        }
    }

    fileprivate struct State {
        var replies: [Reply]
        var last = Cost.none
        var total = Cost.none
        var sent: Data?
        var isClosed = false
        var changes = 0
        /// What requests wait for, by their number.
        var waiting: [Int: Task<Void, any Error>] = [:]
        var requests = 0
    }

    private let info: ModelInfo
    private let classes: [String]
    private let keepSent: Bool
    private let lock = NSLock()
    private var state: State

    /// - Parameters:
    ///   - replies: one for each inference, in their order; when they are used up, label 0. An input of another length
    ///     than the model's uses up none.
    ///   - inputLen: bytes of an input; as many numbers, or half as many where a value has more than 8 bits.
    ///   - inputBits: bits of an input value, 1 to 16.
    ///   - values: how many integers the model gives.
    ///   - classes: their names: as many, or none.
    ///   - keepSent: as `ClientConfig.keepSent`.
    public init(
        _ replies: [Reply] = [], inputLen: UInt32 = 784, inputBits: UInt32 = 8, values: UInt32 = 10,
        classes: [String] = [], keepSent: Bool = false
    ) {
        precondition(
            (1...16).contains(inputBits) && (inputBits <= 8 || inputLen.isMultiple(of: 2)),
            "\(inputLen) bytes of values of \(inputBits) bits")
        precondition(classes.isEmpty || classes.count == Int(values), "\(classes.count) names of \(values) classes")
        for reply in replies {
            guard case .success(let logits) = reply.result else { continue }
            precondition((logits?.count ?? Int(values)) == Int(values), "the model gives \(values) integers")
            precondition(reply.label < values, "the model has no label \(reply.label)")
        }
        info = ModelInfo(inputLen: inputLen, inputBits: inputBits, answerLen: 4 * values, values: values)
        (self.classes, self.keepSent, state) = (classes, keepSent, State(replies: replies))
    }

    /// How many replies are left: a test can say that all were used.
    public var repliesLeft: Int { locked { $0.replies.count } }

    /// How many requests wait for the end of their delay. All their progress was told.
    public var requestsWaiting: Int { locked { $0.waiting.count } }

    /// How often `networkChanged` was called.
    public var networkChanges: Int { locked { $0.changes } }

    /// Whether `shutdown` was called.
    public var isClosed: Bool { locked { $0.isClosed } }

    public func infer(
        _ input: Data, progress: (@Sendable (RequestProgress) -> Void)?
    ) async throws -> Prediction {
        try Task.checkCancellation()
        return try await answer(to: begin(input.count), progress)
    }

    public func inferReals(
        _ input: [Float], progress: (@Sendable (RequestProgress) -> Void)?
    ) async throws -> Prediction {
        try Task.checkCancellation()
        let reply = try begin(input.count, of: info.inputBits > 8 ? info.inputLen / 2 : info.inputLen) {
            guard input.allSatisfy(\.isFinite) else {
                throw SecoError.InvalidConfiguration(reason: "the input has a value that is not a number")
            }
        }
        return try await answer(to: reply, progress)
    }

    public func inferMany(_ inputs: [Data]) async throws -> [Prediction] {
        try Task.checkCancellation()
        // Which reply is whose must not hang on which task is first.
        let begun = inputs.map { input in Result { try begin(input.count) } }
        let results = await withTaskGroup(of: (Int, Result<Prediction, any Error>).self) { group in
            for (index, reply) in begun.enumerated() {
                group.addTask {
                    do {
                        return (index, .success(try await self.answer(to: reply.get(), nil)))
                    } catch {
                        return (index, .failure(error))
                    }
                }
            }
            var results = [Result<Prediction, any Error>?](repeating: nil, count: begun.count)
            for await (index, result) in group { results[index] = result }
            return results
        }
        try Task.checkCancellation()
        return try results.compactMap { try $0?.get() }
    }

    public func probe(up: UInt32, down: UInt32) async throws {
        try Task.checkCancellation()
        guard down <= UInt16.max else {
            throw SecoError.InvalidConfiguration(reason: "a probe of \(down) bytes exceeds \(UInt16.max)")
        }
        try locked { state in
            try state.checkOpen()
            state.spend(Cost(up: up, down: down, wall: 0))
        }
    }

    public func answers(prediction: Prediction) -> [Answer] {
        let values = prediction.logits.map(Double.init)
        let name = Int(prediction.label) < classes.count ? classes[Int(prediction.label)] : nil
        return [
            Answer(
                name: "output", shape: [info.values], kind: .classes, last: .none, values: values, finished: values,
                probabilities: nil, label: prediction.label, className: name)
        ]
    }

    public func model() -> ModelInfo { info }

    public func transport() -> Transport { .quic }

    public func lastCost() -> Cost { locked { $0.last } }

    public func totalCost() -> Cost { locked { $0.total } }

    public func lastSent() -> Data? { locked { $0.sent } }

    public func networkChanged() throws { locked { $0.changes += 1 } }

    public func shutdown() async {
        locked { state in
            state.isClosed = true
            state.waiting.values.forEach { $0.cancel() }
        }
    }

    private func locked<T>(_ body: (inout State) throws -> T) rethrows -> T {
        lock.lock()
        defer { lock.unlock() }
        return try body(&state)
    }

    /// Takes the next reply for an input of this length that is otherwise `checked`.
    private func begin(_ length: Int, of values: UInt32? = nil, checked: () throws -> Void = {}) throws -> Reply {
        let expected = values ?? info.inputLen
        guard length == Int(expected) else {
            throw SecoError.WrongInputSize(
                expected: expected, got: UInt32(clamping: length),
                reason: "the model takes \(expected) input values, got \(length)")
        }
        try checked()
        return try locked { state in
            try state.checkOpen()
            if keepSent { state.sent = Data((0..<length).map { UInt8(truncatingIfNeeded: 151 * $0 + 77) }) }
            return state.replies.isEmpty ? .label(0) : state.replies.removeFirst()
        }
    }

    private func answer(
        to reply: Reply, _ progress: (@Sendable (RequestProgress) -> Void)?
    ) async throws -> Prediction {
        reply.progress.forEach { progress?($0) }
        let (request, waiting) = try locked { state in
            try state.checkOpen()
            state.requests += 1
            let waiting = Task { try await Task.sleep(nanoseconds: UInt64(reply.delay * 1e9)) }
            state.waiting[state.requests] = waiting
            return (state.requests, waiting)
        }
        _ = await withTaskCancellationHandler {
            await waiting.result
        } onCancel: {
            waiting.cancel()
        }
        locked { _ = $0.waiting.removeValue(forKey: request) }
        // A real request too is as good as not made when its task is cancelled.
        try Task.checkCancellation()
        try locked { state in
            try state.checkOpen()
            let wall = UInt64((reply.delay * 1e6).rounded())
            state.spend(reply.cost ?? Cost(up: info.inputLen, down: info.answerLen, wall: wall))
        }
        let logits = try reply.result.get() ?? (0..<info.values).map { $0 == reply.label ? 1 : 0 }
        // The first of several.
        let label = logits.indices.reduce(0) { logits[$1] > logits[$0] ? $1 : $0 }
        return Prediction(label: UInt32(label), logits: logits, outsideCalibration: reply.outsideCalibration)
    }
}

extension FakeSecoClient.State {
    func checkOpen() throws {
        if isClosed { throw SecoError.Closed(reason: "connection lost: the client is closed; try again") }
    }

    mutating func spend(_ cost: Cost) {
        let cpu = total.cpuUs == nil && cost.cpuUs == nil ? nil : (total.cpuUs ?? 0) + (cost.cpuUs ?? 0)
        total = Cost(
            bytesUp: total.bytesUp + cost.bytesUp, bytesDown: total.bytesDown + cost.bytesDown,
            datagramsUp: total.datagramsUp + cost.datagramsUp,
            datagramsDown: total.datagramsDown + cost.datagramsDown, cpuUs: cpu, wallUs: total.wallUs + cost.wallUs)
        last = cost
    }
}

extension Cost {
    fileprivate static let none = Cost(
        bytesUp: 0, bytesDown: 0, datagramsUp: 0, datagramsDown: 0, cpuUs: nil, wallUs: 0)

    /// One packet each way.
    fileprivate init(up: UInt32, down: UInt32, wall: UInt64) {
        self.init(
            bytesUp: UInt64(up), bytesDown: UInt64(down), datagramsUp: 1, datagramsDown: 1, cpuUs: nil, wallUs: wall)
    }
}
