/// Everything the one screen shows.
public struct DigitScreen: Equatable, Sendable {
    public var drawing = Drawing()
    public var status = Status.connecting
    /// The bytes that left the phone for the last answer: the digit under its one-time pad.
    public var sent: [UInt8]?
    public var costs: Costs?

    public init() {}
}

/// Where the app is.
public enum Status: Equatable, Sendable {
    /// Shaking hands with the gateway and opening or resuming the session.
    case connecting
    /// Connected, nothing asked.
    case ready
    /// Waiting for the servers, so many requests ahead.
    case queued(Int)
    /// The servers compute.
    case running
    /// The network's answer.
    case answer(Int)
    /// It did not work; the problem says what the user can do about it.
    case failed(Problem)

    /// What is shown and read aloud.
    public var words: String {
        switch self {
        case .connecting: return "Connecting …"
        case .ready: return "Nobody but you will see it."
        case .queued(let ahead): return "Waiting, \(ahead) ahead …"
        case .running: return "The servers compute …"
        case .answer(let digit): return "It is \(digit)"
        case .failed(let problem): return problem.words
        }
    }

    public var isFailure: Bool {
        if case .failed = self { return true }
        return false
    }

    /// What remains when the request is cancelled.
    var withoutRequest: Status { self == .connecting ? self : .ready }
}

/// What can go wrong, by what the user can do.
public enum Problem: Equatable, Sendable {
    /// No usable deployment file: see the app's README.
    case noDeployment
    /// The gateway cannot be reached: check the network, and that the cluster runs.
    case noConnection
    /// No answer in time, or the servers are busy: try again.
    case busy
    /// The deployment file is not that of these servers: fetch the current one.
    case wrongServers
    /// Anything else: try again.
    case other

    var words: String {
        switch self {
        case .noDeployment: return "There is no usable deployment file. See this app's README."
        case .noConnection: return "The servers cannot be reached. Check the network, and that they run."
        case .busy: return "The servers are busy or slow. Try again."
        case .wrongServers: return "These are not the servers of the deployment file. Get the current one."
        case .other: return "It did not work. Try again."
        }
    }
}

/// One request as the network and the processor saw it.
public struct RequestCost: Equatable, Sendable {
    public let bytesUp: UInt64
    public let bytesDown: UInt64
    public let packets: UInt64
    /// Nil where the system has no such clock.
    public let cpuMicros: UInt64?
    public let wallMicros: UInt64

    public init(bytesUp: UInt64, bytesDown: UInt64, packets: UInt64, cpuMicros: UInt64?, wallMicros: UInt64) {
        self.bytesUp = bytesUp
        self.bytesDown = bytesDown
        self.packets = packets
        self.cpuMicros = cpuMicros
        self.wallMicros = wallMicros
    }
}

/// The last private request beside a plain one: the same number of bytes without privacy.
public struct Costs: Equatable, Sendable {
    public let `private`: RequestCost
    public let plain: RequestCost

    public init(private: RequestCost, plain: RequestCost) {
        self.private = `private`
        self.plain = plain
    }
}
