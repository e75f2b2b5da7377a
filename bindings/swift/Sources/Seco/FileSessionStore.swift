import Foundation

/// Keeps a session in a file that only this user can read.
///
/// The content is secret and must not return to an earlier state, so exclude the file from backups; on iOS
/// `KeychainSessionStore` is the better place. One process uses it at a time.
public final class FileSessionStore: SessionStore {
    private let path: String

    public init(path: String) {
        self.path = path
    }

    public func load() throws -> Data? {
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        guard let session = FileManager.default.contents(atPath: path) else { throw unavailable("read") }
        return session
    }

    public func save(session: Data) throws {
        let next = path + ".new"
        unlink(next)
        let file = open(next, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        guard file >= 0 else { throw unavailable("created") }
        let handle = FileHandle(fileDescriptor: file, closeOnDealloc: true)
        do {
            try handle.write(contentsOf: session)
            try handle.synchronize()
            try handle.close()
        } catch {
            throw unavailable("written")
        }
        guard rename(next, path) == 0 else { throw unavailable("renamed") }
        // The new name must outlive a crash too.
        let folder = open(URL(fileURLWithPath: path).deletingLastPathComponent().path, O_RDONLY)
        defer { close(folder) }
        guard folder >= 0, fsync(folder) == 0 else { throw unavailable("kept") }
    }

    private func unavailable(_ what: String) -> StoreError {
        .Unavailable(reason: "\(path) cannot be \(what)")
    }
}
