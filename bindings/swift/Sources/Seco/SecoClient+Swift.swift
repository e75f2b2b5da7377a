import Foundation

extension SecoError {
    /// The stable number of this kind of error, 1 to 11: for logs and reports.
    public var code: Int {
        switch self {
        case .InvalidConfiguration: return 1
        case .WrongInputSize: return 2
        case .Network: return 3
        case .Timeout: return 4
        case .Busy: return 5
        case .Refused: return 6
        case .UntrustedServer: return 7
        case .IncompatibleServer: return 8
        case .Storage: return 9
        case .Closed: return 10
        case .TokenRefused: return 11
        }
    }
}

/// Asks the gateway for the text of a deployment file that takes that of `config`'s place: signed by the owner whom the
/// present one names, and newer. `nil` where there is none. It was checked; keep it beside the old one until a client has
/// connected with it. Cancelling the task cancels it.
///
/// - Throws: `SecoError`; `InvalidConfiguration` if the present file names no owner, or what came is not to be used.
public func fetchDeploymentUpdate(config: ClientConfig) async throws -> String? {
    try await untilCancelled { try await fetchDeploymentUpdateUntil(config: config, cancellation: $0) }
}

extension SecoClient {
    /// Connects, and opens a session or goes on with the one in `store`. `token` is the text of one, for a gateway that
    /// asks for it. `log` is told what the client does, on the library's thread, and nothing that is secret: `UnifiedLog` on
    /// Apple's systems, or the app's own. Cancelling the task cancels it.
    ///
    /// - Throws: `SecoError`, of any kind but `WrongInputSize`.
    public static func connect(
        config: ClientConfig, store: (any SessionStore)? = nil, token: String? = nil, log: (any ClientLog)? = nil
    ) async throws -> SecoClient {
        try await untilCancelled {
            try await connectUntil(config: config, store: store, cancellation: $0, token: token, log: log)
        }
    }
}

// What is not here is the generated class's own.
extension SecoClient: InferenceClient {
    public func infer(
        _ input: Data, progress: (@Sendable (RequestProgress) -> Void)?
    ) async throws -> Prediction {
        let listener = progress.map(Listener.init)
        return try await untilCancelled {
            try await inferUntil(input: input, listener: listener, cancellation: $0, form: nil)
        }
    }

    public func inferReals(
        _ input: [Float], progress: (@Sendable (RequestProgress) -> Void)?
    ) async throws -> Prediction {
        let listener = progress.map(Listener.init)
        return try await untilCancelled {
            try await inferUntil(input: littleEndian(input), listener: listener, cancellation: $0, form: .floats)
        }
    }

    public func inferMany(_ inputs: [Data]) async throws -> [Prediction] {
        try await untilCancelled { try await inferManyUntil(inputs: inputs, cancellation: $0) }
    }

    public func probe(up: UInt32, down: UInt32) async throws {
        try await untilCancelled { try await probeUntil(up: up, down: down, cancellation: $0) }
    }
}

/// Four bytes for each.
func littleEndian(_ values: [Float]) -> Data {
    var data = Data(capacity: 4 * values.count)
    for value in values {
        withUnsafeBytes(of: value.bitPattern.littleEndian) { data.append(contentsOf: $0) }
    }
    return data
}

/// Ends `call` by its cancellation when the task is cancelled: UniFFI's futures go on otherwise.
private func untilCancelled<T>(_ call: (Cancellation) async throws -> T) async throws -> T {
    try Task.checkCancellation()
    let cancellation = Cancellation()
    do {
        return try await withTaskCancellationHandler {
            try await call(cancellation)
        } onCancel: {
            cancellation.cancel()
        }
    } catch SecoError.Closed where Task.isCancelled {
        throw CancellationError()
    }
}

private final class Listener: ProgressListener {
    private let tell: @Sendable (RequestProgress) -> Void

    init(_ tell: @escaping @Sendable (RequestProgress) -> Void) {
        self.tell = tell
    }

    func onProgress(progress: RequestProgress) {
        tell(progress)
    }
}
