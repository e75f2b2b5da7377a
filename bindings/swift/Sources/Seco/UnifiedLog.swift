#if canImport(os)
import os

/// Tells Apple's unified logging what a client does. Texts have nothing of users, so they are public there.
public final class UnifiedLog: ClientLog {
    private let logger: Logger

    public init(_ logger: Logger = Logger(subsystem: "io.github.seco", category: "client")) {
        self.logger = logger
    }

    public func log(level: LogLevel, name: String, text: String) {
        switch level {
        case .debug: logger.debug("\(text, privacy: .public)")
        case .info: logger.info("\(text, privacy: .public)")
        case .warning: logger.warning("\(text, privacy: .public)")
        }
    }
}
#endif
