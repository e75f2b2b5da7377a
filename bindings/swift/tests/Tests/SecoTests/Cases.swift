import Foundation
import Seco
import SecoServers
import SecoTesting

/// The cases of all languages (`bindings/cases.json`), and what comes of them with any client.
struct Case {
    let name: String
    let real: Bool
    let inputBits: UInt32
    let keepSent: Bool
    let replies: [FakeSecoClient.Reply]
    private let calls: [Entry]

    /// What a client did otherwise than the case says, or what nobody knows in the case.
    struct Wrong: Error {
        let what: String
    }

    static func all(_ file: Data) throws -> [Case] {
        let file = try Entry(JSONSerialization.jsonObject(with: file))
        try file.has(only: ["about", "cases"])
        return try file.entries("cases").map(Case.init)
    }

    private init(_ entry: Entry) throws {
        try entry.has(only: ["name", "real", "input_bits", "keep_sent", "replies", "calls"])
        name = try entry.text("name")
        real = try entry.value("real")
        inputBits = try entry.optional("input_bits") ?? 8
        keepSent = try entry.optional("keep_sent") ?? false
        calls = try entry.entries("calls")
        replies = try entry.entries("replies").map { reply in
            try reply.has(only: ["label", "delay_ms", "progress", "cost"] + Entry.failure)
            let delay = Double(try reply.optional("delay_ms") ?? 0) / 1000
            let progress = try reply.progress("progress") ?? [.sent]
            let cost = try reply.optionalEntry("cost").map { entry in
                try entry.has(only: Array(Entry.costs.keys))
                return Cost(
                    bytesUp: try entry.value("bytes_up"), bytesDown: try entry.value("bytes_down"),
                    datagramsUp: try entry.value("datagrams_up"), datagramsDown: try entry.value("datagrams_down"),
                    cpuUs: nil, wallUs: try entry.value("wall_us"))
            }
            if let error = try reply.error() {
                return .failure(error, delay: delay, progress: progress, cost: cost)
            }
            return .label(try reply.value("label"), delay: delay, progress: progress, cost: cost)
        }
    }

    /// Makes the calls, and checks what comes of each.
    func run(_ client: any InferenceClient, digits: [Data]) async throws {
        for entry in calls {
            let expected = try entry.error()
            var met: SecoError?
            do {
                try await call(client, entry, digits)
            } catch let error as SecoError {
                met = error
            }
            try check(entry, met?.code == expected?.code, "\(met.map { "\($0)" } ?? "no error")")
            if let met { try check(entry, try entry.tells(met), "\(met)") }
        }
    }

    private func check(_ entry: Entry, _ good: Bool, _ what: String) throws {
        if !good { throw Wrong(what: "\(name): \(what), but \(entry.members)") }
    }

    private func call(_ client: any InferenceClient, _ entry: Entry, _ digits: [Data]) async throws {
        func digit() throws -> Data {
            digits[try entry.value("digit")]
        }
        func check(_ good: Bool, _ what: String = "not so") throws { try self.check(entry, good, what) }
        func knows(_ keys: [String], fails: Bool = false) throws {
            try entry.has(only: ["call"] + keys + (fails ? Entry.failure : []))
        }
        func label(_ prediction: Prediction) throws {
            try check(prediction.label == (try entry.optional("label")), "\(prediction)")
            try check(prediction.logits.count == 10)
            try check(client.answers(prediction: prediction).first?.label == prediction.label, "another label")
        }
        switch try entry.text("call") {
        case "model":
            try knows(["input_len", "input_bits", "values"])
            let model = client.model()
            try check(model.inputBits == (try entry.optional("input_bits") ?? 8))
            try check(model.inputLen == (try entry.value("input_len")) && model.values == (try entry.value("values")))
        case "transport":
            try knows(["is"])
            try check("\(client.transport())" == (try entry.text("is")))
        case "last_cost":
            try knows(["is", "at_least"])
            try check(try entry.holds(client.lastCost()), "\(client.lastCost())")
        case "total_cost":
            try knows(["is", "at_least"])
            try check(try entry.holds(client.totalCost()), "\(client.totalCost())")
        case "last_sent":
            try knows(["length"])
            let sent = client.lastSent()
            try check(sent?.count == (try entry.optional("length")), "\(sent?.count ?? -1) bytes")
            try check(sent.map { !digits.contains($0) } ?? true, "the input was sent")
        case "infer":
            try knows(["digit", "length", "label", "progress", "progress_begins"], fails: true)
            let input = try (try entry.optional("length")).map { Data(count: $0) } ?? digit()
            let told = Told()
            let result = await Result { try await client.infer(input) { told.add($0) } }
            if let all = try entry.progress("progress") { try check(told.all == all, "\(told.all)") }
            if let first = try entry.progress("progress_begins") {
                try check(told.all.starts(with: first), "\(told.all)")
            }
            try label(try result.get())
        case "infer_reals":
            try knows(["length", "fill", "label"], fails: true)
            let fill: String? = try entry.optional("fill")
            guard let real = ["zero": 0, "nan": Float.nan, "infinity": .infinity][fill ?? "zero"] else {
                throw Case.Wrong(what: "fill in \(entry.members)")
            }
            try label(try await client.inferReals([Float](repeating: real, count: entry.value("length"))))
        case "infer_many":
            try knows(["digits", "labels"], fails: true)
            let wanted: [Int] = try entry.value("digits")
            let predictions = try await client.inferMany(wanted.map { digits[$0] })
            try check(predictions.map { Int($0.label) } == (try entry.optional("labels")), "\(predictions)")
        case "probe":
            try knows(["up", "down"], fails: true)
            try await client.probe(up: entry.value("up"), down: entry.value("down"))
        case "plain_request":
            try knows([])
            try await client.plainRequest()
        case "network_changed":
            try knows([])
            try client.networkChanged()
        case "cancel":
            try knows(["digit"])
            let (sent, tell) = AsyncStream<Void>.makeStream()
            let input = try digit()
            let task = Task { _ = try await client.infer(input) { _ in tell.yield() } }
            for await _ in sent { break }
            task.cancel()
            do {
                try await task.value
                try check(false, "answered")
            } catch is CancellationError {}
        case "close_during":
            try knows(["digit"], fails: true)
            let (sent, tell) = AsyncStream<Void>.makeStream()
            let input = try digit()
            let task = Task { _ = try await client.infer(input) { _ in tell.yield() } }
            for await _ in sent { break }
            await client.shutdown()
            try await task.value
        case "close":
            try knows([])
            await client.shutdown()
        case let other:
            throw Wrong(what: "an unknown call: \(other)")
        }
    }
}

/// What a request told.
private final class Told: @unchecked Sendable {
    private let lock = NSLock()
    private var progress: [RequestProgress] = []

    var all: [RequestProgress] {
        lock.lock()
        defer { lock.unlock() }
        return progress
    }

    func add(_ now: RequestProgress) {
        lock.lock()
        defer { lock.unlock() }
        progress.append(now)
    }
}

extension Result where Failure == any Error {
    fileprivate init(_ body: () async throws -> Success) async {
        do {
            self = .success(try await body())
        } catch {
            self = .failure(error)
        }
    }
}

/// An object of the file.
private struct Entry {
    static let failure = ["error", "expected", "got", "problem", "retry_after_ms", "retry_after_s"]
    static let costs: [String: KeyPath<Cost, UInt64>] = [
        "bytes_up": \.bytesUp, "bytes_down": \.bytesDown, "datagrams_up": \.datagramsUp,
        "datagrams_down": \.datagramsDown, "wall_us": \.wallUs,
    ]

    let members: [String: Any]

    init(_ value: Any) throws {
        guard let members = value as? [String: Any] else { throw Case.Wrong(what: "no object: \(value)") }
        self.members = members
    }

    func has(only keys: [String]) throws {
        let unknown = Set(members.keys).subtracting(keys)
        if !unknown.isEmpty { throw Case.Wrong(what: "unknown in \(members): \(unknown)") }
    }

    func value<T>(_ key: String) throws -> T {
        guard let value: T = try optional(key) else { throw Case.Wrong(what: "no \(key) in \(members)") }
        return value
    }

    /// Nil where it is null or not there.
    func optional<T>(_ key: String) throws -> T? {
        guard let value = members[key], !(value is NSNull) else { return nil }
        guard let value = value as? T else { throw Case.Wrong(what: "\(key) in \(members)") }
        return value
    }

    func text(_ key: String) throws -> String { try value(key) }

    func optionalEntry(_ key: String) throws -> Entry? { try members[key].map(Entry.init) }

    func entries(_ key: String) throws -> [Entry] {
        let all: [Any] = try value(key)
        return try all.map(Entry.init)
    }

    func progress(_ key: String) throws -> [RequestProgress]? {
        let texts: [String]? = try optional(key)
        return try texts?.map { text in
            let words = text.split(separator: " ")
            let numbers = words.dropFirst().compactMap { UInt32($0) }
            switch (words.first, numbers.count, words.count) {
            case ("sent", 0, 1): return .sent
            case ("running", 0, 1): return .running
            case ("queued", 2, 3): return .queued(position: numbers[0], waitMs: numbers[1])
            case ("waiting", 1, 2): return .waiting(server: numbers[0])
            default: throw Case.Wrong(what: "an unknown progress: \(text)")
            }
        }
    }

    /// The error that is the script's, or expected.
    func error() throws -> SecoError? {
        guard let code: Int = try optional("error") else {
            if let part = Self.failure.first(where: { members[$0] != nil }) {
                throw Case.Wrong(what: "\(part) without an error: \(members)")
            }
            return nil
        }
        let reason = "by script"
        switch code {
        case 1: return .InvalidConfiguration(reason: reason)
        case 2: return .WrongInputSize(expected: try optional("expected") ?? 0, got: try optional("got") ?? 0, reason: reason)
        case 3: return .Network(reason: reason)
        case 4: return .Timeout(reason: reason)
        case 5: return .Busy(retryAfterMs: try optional("retry_after_ms") ?? 0)
        case 6: return .Refused(reason: reason)
        case 7: return .UntrustedServer(reason: reason)
        case 8: return .IncompatibleServer(reason: reason)
        case 9: return .Storage(reason: reason)
        case 10: return .Closed(reason: reason)
        case 11:
            let problem = try text("problem")
            guard let known = [TokenProblem.missing, .invalid, .expired, .exhausted].first(where: { "\($0)" == problem })
            else { throw Case.Wrong(what: "an unknown problem: \(problem)") }
            return .TokenRefused(problem: known, retryAfterS: try optional("retry_after_s") ?? 0, reason: reason)
        default: throw Case.Wrong(what: "an unknown error: \(code)")
        }
    }

    /// Whether `error` says what is known of it here.
    func tells(_ error: SecoError) throws -> Bool {
        var told: [String: String] = [:]
        switch error {
        case .WrongInputSize(let expected, let got, let reason):
            told = ["expected": "\(expected)", "got": "\(got)"]
            if reason.isEmpty { return false }
        case .Busy(let after): told = ["retry_after_ms": "\(after)"]
        case .TokenRefused(let problem, let after, _): told = ["problem": "\(problem)", "retry_after_s": "\(after)"]
        default: break
        }
        return Self.failure.dropFirst().allSatisfy { key in
            members[key].map { told[key] == "\($0)" } ?? true
        }
    }

    /// Whether a cost is as this says.
    func holds(_ cost: Cost) throws -> Bool {
        guard (members["is"] == nil) != (members["at_least"] == nil) else {
            throw Case.Wrong(what: "is or at_least: \(members)")
        }
        let numbers = try Entry(members["is"] ?? members["at_least"] as Any)
        return try numbers.members.keys.allSatisfy { name in
            guard let part = Self.costs[name] else { throw Case.Wrong(what: "an unknown part: \(name)") }
            let number: UInt64 = try numbers.value(name)
            return members["is"] == nil ? cost[keyPath: part] >= number : cost[keyPath: part] == number
        }
    }
}
