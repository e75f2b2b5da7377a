import Foundation

/// Keeps a session in a file that only this user can read.
///
/// The content is secret: whoever gets it can read inputs and answers from recorded traffic. So exclude the file from
/// backups; on iOS `KeychainSessionStore` is the better place. Any number of threads and processes may use the file at
/// the same time.
public final class FileSessionStore: SessionStore {
    private let path: String

    public init(path: String) {
        self.path = path
    }

    private var folder: URL { URL(fileURLWithPath: path).deletingLastPathComponent() }

    public func load() throws -> Data? {
        do {
            return try Data(contentsOf: URL(fileURLWithPath: path))
        } catch {
            guard FileManager.default.fileExists(atPath: path) else { return nil }
            throw unavailable("read")
        }
    }

    public func save(session: Data) throws {
        cleanUp()
        // A name that no other writer has.
        let next = "\(path).\(UUID().uuidString).new"
        let file = open(next, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        guard file >= 0 else { throw unavailable("created") }
        let handle = FileHandle(fileDescriptor: file, closeOnDealloc: true)
        do {
            try handle.write(contentsOf: session)
            guard Self.flush(file) else { throw unavailable("written") }
            try handle.close()
        } catch {
            unlink(next)
            throw unavailable("written")
        }
        guard rename(next, path) == 0 else {
            unlink(next)
            throw unavailable("renamed")
        }
        // The new name must outlive a crash too.
        let directory = open(folder.path, O_RDONLY)
        guard directory >= 0 else { throw unavailable("kept") }
        defer { close(directory) }
        guard Self.flush(directory) else { throw unavailable("kept") }
    }

    /// Waits until what was written outlives a loss of power.
    private static func flush(_ file: Int32) -> Bool {
        #if canImport(Darwin)
        // There, `fsync` only hands it to the drive. Where a file system has no F_FULLFSYNC, `fsync` is all there is.
        return fcntl(file, F_FULLFSYNC) == 0 || fsync(file) == 0
        #else
        return fsync(file) == 0
        #endif
    }

    /// Removes what writers left that crashed more than an hour ago: writing takes far less.
    private func cleanUp() {
        let files = FileManager.default
        let prefix = URL(fileURLWithPath: path).lastPathComponent + "."
        let before = Date(timeIntervalSinceNow: -3600)
        for name in (try? files.contentsOfDirectory(atPath: folder.path)) ?? []
        where name.hasPrefix(prefix) && name.hasSuffix(".new") {
            guard UUID(uuidString: String(name.dropFirst(prefix.count).dropLast(4))) != nil else { continue }
            let left = folder.appendingPathComponent(name).path
            if let written = try? files.attributesOfItem(atPath: left)[.modificationDate] as? Date, written < before {
                unlink(left)
            }
        }
    }

    private func unavailable(_ what: String) -> StoreError {
        .Unavailable(reason: "\(path) cannot be \(what)")
    }
}
