/// What the screen needs of a connection to the servers.
public protocol Classifier: Sendable {
    /// The digit in `pixels`; `queued` is told how many requests are ahead, and nil when the servers begin.
    /// It may come from any thread. Cancelling the task cancels the request.
    func classify(_ pixels: [UInt8], queued: @escaping @Sendable (Int?) -> Void) async throws -> Int

    /// A plain request of the same size, for comparison.
    func plainRequest() async throws

    /// Cost of the last request of either kind.
    func lastCost() -> RequestCost

    /// The bytes that left the phone in the last `classify`.
    func lastSent() -> [UInt8]?

    /// To be called when the phone changed its network or woke up.
    func networkChanged()

    /// Ends the connection.
    func close() async
}

/// A failure that the user can do something about.
public struct ClassifierError: Error, Equatable {
    public let problem: Problem

    public init(_ problem: Problem) {
        self.problem = problem
    }
}
