import Foundation

/// All that the app does, without a screen.
///
/// `connect` makes a connection; it is called again when it threw. A drawing is asked about when no stroke
/// follows for `pause` seconds.
@MainActor
public final class DigitViewModel {
    /// What to show.
    public private(set) var screen = DigitScreen() {
        didSet { if screen != oldValue { changed?(screen) } }
    }

    /// Told every change of `screen`.
    public var changed: ((DigitScreen) -> Void)?

    private let pause: TimeInterval
    private let connect: @Sendable () async throws -> SecoClassifier
    private var connecting: Task<SecoClassifier, any Error>?
    private var classifier: SecoClassifier?
    private var work: Task<Void, Never>?
    /// Counts requests, so that what one tells late is not taken for the next one's.
    private var request = 0

    public init(pause: TimeInterval = 0.5, connect: @escaping @Sendable () async throws -> SecoClassifier) {
        self.pause = pause
        self.connect = connect
    }

    /// Connects. To be called once at the start; afterwards `retry` does it.
    public func start() {
        begin { model in
            _ = try await model.connected()
            model.screen.status = .ready
        }
    }

    /// The finger went down. A request under way is cancelled: its answer would be for another drawing.
    public func strokeBegan(_ point: Point) {
        cancel()
        screen.drawing.begin(point)
        screen.status = screen.status.withoutRequest
    }

    /// The finger moved.
    public func strokeMoved(_ point: Point) {
        screen.drawing.extend(point)
    }

    /// The finger went up.
    public func strokeEnded() {
        begin { model in
            try await Task.sleep(nanoseconds: UInt64(model.pause * 1e9))
            try await model.ask()
        }
    }

    /// Empties the drawing and cancels what is under way.
    public func clear() {
        cancel()
        var empty = DigitScreen()
        empty.status = screen.status.withoutRequest
        screen = empty
        start()
    }

    /// Does again what failed.
    public func retry() {
        begin { try await $0.ask() }
    }

    /// The phone changed its network or came to the front.
    public func networkChanged() {
        classifier?.networkChanged()
    }

    /// Ends the connection.
    public func close() async {
        cancel()
        await work?.value
        let classifier = try? await connecting?.value
        (connecting, self.classifier) = (nil, nil)
        await classifier?.close()
    }

    private func ask() async throws {
        let classifier = try await connected()
        guard !screen.drawing.isEmpty else { return screen.status = .ready }
        screen.status = .running
        request += 1
        let mine = request
        let pixels = screen.drawing.pixels()
        let digit = try await classifier.classify(pixels) { ahead in
            // It comes from any thread.
            Task { @MainActor in
                guard self.request == mine else { return }
                self.screen.status = ahead.map(Status.queued) ?? .running
            }
        }
        // A task that is cancelled when the answer is already here gets the answer.
        try Task.checkCancellation()
        request += 1
        let cost = classifier.lastCost()
        // The answer first: the comparison is of interest, but nobody should wait for it.
        var answered = screen
        (answered.status, answered.sent, answered.costs) = (.answer(digit), classifier.lastSent(), nil)
        screen = answered
        try await classifier.plainRequest()
        try Task.checkCancellation()
        screen.costs = Costs(private: cost, plain: classifier.lastCost())
    }

    /// The connection. Cancelling who waits for it does not cancel connecting.
    private func connected() async throws -> SecoClassifier {
        if let classifier { return classifier }
        screen.status = .connecting
        let connect = connect
        let attempt = connecting ?? Task { try await connect() }
        connecting = attempt
        do {
            let made = try await attempt.value
            classifier = made
            try Task.checkCancellation()
            return made
        } catch {
            if classifier == nil { connecting = nil }
            throw error
        }
    }

    /// Cancels what is under way; nothing it does is shown any more.
    private func cancel() {
        work?.cancel()
        request += 1
    }

    /// Runs `action` instead of what is under way.
    private func begin(_ action: @escaping @MainActor (DigitViewModel) async throws -> Void) {
        let before = work
        cancel()
        work = Task {
            // Two requests side by side would share their cost.
            await before?.value
            do {
                try Task.checkCancellation()
                try await action(self)
            } catch {
                guard !Task.isCancelled else { return }
                screen.status = .failed((error as? ClassifierError)?.problem ?? .other)
            }
        }
    }
}
