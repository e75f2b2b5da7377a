import Foundation

extension SecoError {
    /// The stable number of this kind of error, 1 to 10: for logs and reports.
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
        }
    }
}

extension SecoClient {
    /// Runs the model on `input`, one byte per value in the order of the model's input. Cancelling the task
    /// cancels the request and throws `CancellationError`; `infer` would go on.
    ///
    /// `progress` is told how the request is getting on, on the library's thread.
    ///
    /// - Throws: `SecoError`. In every case another request may be tried.
    public func predict(
        _ input: Data, progress: (@Sendable (RequestProgress) -> Void)? = nil
    ) async throws -> Prediction {
        try Task.checkCancellation()
        let inference = start(input: input, listener: progress.map(Listener.init))
        do {
            return try await withTaskCancellationHandler {
                try await inference.result()
            } onCancel: {
                inference.cancel()
            }
        } catch SecoError.Closed where Task.isCancelled {
            throw CancellationError()
        }
    }

    /// A plain request as large as a private one, to compare `lastCost` with.
    public func plainRequest() async throws {
        let model = model()
        try await probe(up: model.inputLen, down: model.answerLen)
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
