import Foundation

/// A real cluster: gateway and remote servers as processes of this machine; guarded, it serves only who shows its token.
public final class Cluster: @unchecked Sendable {
    public let folder: URL
    public let deployment: String
    public let token: String?
    private let process = Process()

    public init(model: String = "minionn", servers: Int = 3, guarded: Bool = false) throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("seco-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let (file, log) = (folder.appendingPathComponent("deployment.toml"), folder.appendingPathComponent("log"))
        _ = FileManager.default.createFile(atPath: log.path, contents: nil)
        process.executableURL = URL(fileURLWithPath: setting("SECO_SERVER"))
        process.arguments = [
            "demo", "--keep", "--model", model, "--servers", "\(servers)", "--count", "1",
            "--listen", "127.0.0.1", "--deployment", file.path,
        ]
        let shown = folder.appendingPathComponent("token")
        if guarded { process.arguments? += ["--token", shown.path] }
        let output = try FileHandle(forWritingTo: log)
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let end = Date() + 120
        while !(try String(contentsOf: log, encoding: .utf8)).contains("--deployment") {
            guard process.isRunning, Date() < end else {
                throw NSError(domain: (try? String(contentsOf: log, encoding: .utf8)) ?? "", code: 1)
            }
            Thread.sleep(forTimeInterval: 0.05)
        }
        deployment = try String(contentsOf: file, encoding: .utf8)
        token = guarded ? try String(contentsOf: shown, encoding: .utf8) : nil
    }

    /// Ends all servers.
    public func close() {
        // Its servers end with it, whatever ends it.
        kill(process.processIdentifier, SIGKILL)
        while process.isRunning { Thread.sleep(forTimeInterval: 0.02) }
        try? FileManager.default.removeItem(at: folder)
    }

    deinit { close() }
}

/// An environment variable that `test` sets.
public func setting(_ name: String) -> String {
    ProcessInfo.processInfo.environment[name] ?? ""
}
