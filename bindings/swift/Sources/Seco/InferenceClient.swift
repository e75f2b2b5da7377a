import Foundation

/// What an app codes against, so that its tests can bring another client than `SecoClient`: `FakeSecoClient` of the product
/// `SecoTesting`, or one of their own.
///
/// The calls are `SecoClient`'s; connecting is not among them, for it takes what only real servers have. (The generated
/// `SecoClientProtocol` is the library's raw interface, and not meant for apps.)
public protocol InferenceClient: Sendable {
    /// Runs the model on `input`, one byte per value in the order of the model's input; two, the lower one first, where the
    /// model's values have more than 8 bits.
    ///
    /// `progress` is told how the request is getting on, on a thread of the client's. Cancelling the task cancels the
    /// request, and throws `CancellationError`.
    ///
    /// - Throws: `SecoError`. In every case another request may be tried.
    func infer(_ input: Data, progress: (@Sendable (RequestProgress) -> Void)?) async throws -> Prediction

    /// Runs the model on real numbers, in the order of the model's input. The deployment file (`[model.quantise]`) says
    /// how they become input values, on the device; `outsideCalibration` is also true if one was beyond these and cut.
    ///
    /// - Throws: `SecoError`; `InvalidConfiguration` for what is not a number. In every case another request may be
    ///   tried.
    func inferReals(_ input: [Float], progress: (@Sendable (RequestProgress) -> Void)?) async throws -> Prediction

    /// Runs the model on every one of `inputs`, up to eight at a time; results in their order.
    ///
    /// - Throws: the `SecoError` of the first input that failed. The others were run all the same.
    func inferMany(_ inputs: [Data]) async throws -> [Prediction]

    /// Sends `up` random bytes and receives `down`: what a plain request of that size costs.
    ///
    /// - Throws: `SecoError`; `InvalidConfiguration` beyond the longest request or 65,535 bytes down.
    func probe(up: UInt32, down: UInt32) async throws

    /// What a prediction of this client says, output by output: numbers, probabilities, class.
    func answers(prediction: Prediction) -> [Answer]

    /// What the model takes and gives.
    func model() -> ModelInfo

    /// What carries the requests at present.
    func transport() -> Transport

    /// Cost of the last request that ended, private or plain.
    func lastCost() -> Cost

    /// Cost of everything so far: connecting, the session, and all requests.
    func totalCost() -> Cost

    /// The masked input that the last request sent: what others get to see. Needs `keepSent`.
    func lastSent() -> Data?

    /// To be called when the device changed its network or woke up: the connection moves there.
    ///
    /// - Throws: `SecoError.Network` if there is no new socket; the old one stays in use.
    func networkChanged() throws

    /// Tells the gateway that the client is done, and fails all requests with `SecoError.Closed`.
    func shutdown() async
}

extension InferenceClient {
    /// `infer(_:progress:)`, telling nobody.
    public func infer(_ input: Data) async throws -> Prediction {
        try await infer(input, progress: nil)
    }

    /// `inferReals(_:progress:)`, telling nobody.
    public func inferReals(_ input: [Float]) async throws -> Prediction {
        try await inferReals(input, progress: nil)
    }

    /// A plain request as large as a private one, to compare `lastCost` with.
    public func plainRequest() async throws {
        let model = model()
        try await probe(up: model.inputLen, down: model.answerLen)
    }
}
