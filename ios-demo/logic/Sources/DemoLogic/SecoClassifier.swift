import Foundation
import Seco

/// The servers of a deployment file.
public final class SecoClassifier: Classifier {
    private let client: SecoClient

    /// Connects to the servers that `deployment`, the text of a deployment file, names.
    ///
    /// - Parameter session: keeps the session, so that the next start opens no new one.
    public init(deployment: String, session: (any SessionStore)? = nil) async throws {
        client = try await Self.explained {
            // An outage is waited for, but not for as long as a queue may be: somebody looks at the screen.
            let config = ClientConfig(deployment: deployment, requestTimeoutMs: 20_000, keepSent: true)
            return try await SecoClient.connect(config: config, store: session)
        }
        // A deployment for other inputs than this app's.
        if client.model().inputLen != UInt32(Drawing.side * Drawing.side) { throw ClassifierError(.noDeployment) }
    }

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

    public func plainRequest() async throws {
        try await Self.explained { try await client.plainRequest() }
    }

    public func lastCost() -> RequestCost {
        let cost = client.lastCost()
        return RequestCost(
            bytesUp: cost.bytesUp, bytesDown: cost.bytesDown, packets: cost.datagramsUp + cost.datagramsDown,
            cpuMicros: cost.cpuUs, wallMicros: cost.wallUs
        )
    }

    public func lastSent() -> [UInt8]? {
        client.lastSent().map { [UInt8]($0) }
    }

    public func networkChanged() {
        // Without a new socket the old one stays in use, and the next request says whether it works.
        try? client.networkChanged()
    }

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
