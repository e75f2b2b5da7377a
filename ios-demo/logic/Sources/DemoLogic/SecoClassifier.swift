import Foundation
import Seco

/// A failure that the user can do something about.
public struct ClassifierError: Error, Equatable {
    public let problem: Problem

    public init(_ problem: Problem) {
        self.problem = problem
    }
}

/// What the screen needs of a connection to the servers.
public final class SecoClassifier: Sendable {
    private let client: any InferenceClient

    /// On a client that is connected, or a test's.
    public init(_ client: any InferenceClient) throws {
        // A deployment for other inputs than this app's.
        let model = client.model()
        let fits = model.inputBits <= 8 && model.inputLen == UInt32(Drawing.side * Drawing.side)
        if !fits { throw ClassifierError(.noDeployment) }
        self.client = client
    }

    /// Connects to the servers that `deployment`, the text of a deployment file, names.
    ///
    /// - Parameter session: keeps the session, so that the next start opens no new one.
    public convenience init(
        deployment: String, session: (any SessionStore)? = nil, log: (any ClientLog)? = nil
    ) async throws {
        let client = try await Self.explained {
            // An outage is waited for, but not for as long as a queue may be: somebody looks at the screen.
            let config = ClientConfig(deployment: deployment, requestTimeoutMs: 20_000, keepSent: true)
            return try await SecoClient.connect(config: config, store: session, log: log)
        }
        try self.init(client)
    }

    /// The digit in `pixels`; `queued` is told how many requests are ahead, and nil when the servers begin.
    /// It may come from any thread. Cancelling the task cancels the request.
    public func classify(_ pixels: [UInt8], queued: @escaping @Sendable (Int?) -> Void) async throws -> Int {
        try await Self.explained {
            let prediction = try await client.infer(Data(pixels)) { progress in
                switch progress {
                case .sent, .waiting: break
                // Position 1 is the next: nobody is ahead of it.
                case .queued(let position, _): queued(max(Int(position), 1) - 1)
                case .running: queued(nil)
                }
            }
            return Int(prediction.label)
        }
    }

    /// A plain request of the same size, for comparison.
    public func plainRequest() async throws {
        try await Self.explained { try await client.plainRequest() }
    }

    /// Cost of the last request of either kind.
    public func lastCost() -> RequestCost {
        let cost = client.lastCost()
        return RequestCost(
            bytesUp: cost.bytesUp, bytesDown: cost.bytesDown, packets: cost.datagramsUp + cost.datagramsDown,
            cpuMicros: cost.cpuUs, wallMicros: cost.wallUs
        )
    }

    /// The bytes that left the phone in the last `classify`.
    public func lastSent() -> [UInt8]? {
        client.lastSent().map { [UInt8]($0) }
    }

    /// To be called when the phone changed its network or woke up.
    public func networkChanged() {
        // Without a new socket the old one stays in use, and the next request says whether it works.
        try? client.networkChanged()
    }

    /// Ends the connection.
    public func close() async {
        await client.shutdown()
    }

    private static func explained<T>(_ call: () async throws -> T) async throws -> T {
        do {
            return try await call()
        } catch let error as SecoError {
            throw ClassifierError(Problem(error))
        }
    }
}

extension Problem {
    init(_ error: SecoError) {
        switch error {
        case .InvalidConfiguration, .WrongInputSize: self = .noDeployment
        case .Network: self = .noConnection
        case .Timeout, .Busy: self = .busy
        case .UntrustedServer, .IncompatibleServer: self = .wrongServers
        case .Refused, .Storage, .Closed, .TokenRefused: self = .other
        }
    }
}
