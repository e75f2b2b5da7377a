import Foundation
import Seco
import XCTest

/// A session in a file: whole at any moment, whoever writes at the same time.
final class FileSessionStoreTests: XCTestCase {
    private var folder = URL(fileURLWithPath: "")
    private var path: String { folder.appendingPathComponent("session").path }

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("seco-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    private func names() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }

    /// Whole if it is of one byte, as long as that says.
    private func session(_ writer: Int) -> Data {
        Data(repeating: UInt8(writer), count: 100 + writer)
    }

    func testWritersAtTheSameTime() throws {
        let (path, sessions) = (path, (0..<8).map(session))
        let failures = Failures()
        DispatchQueue.concurrentPerform(iterations: 8) { writer in
            // Stores know nothing of each other, as in several processes.
            let store = FileSessionStore(path: path)
            for _ in 0..<25 {
                do {
                    try store.save(session: sessions[writer])
                    let loaded = try store.load()
                    if !sessions.contains(where: { $0 == loaded }) { failures.add("not whole") }
                } catch {
                    failures.add("\(error)")
                }
            }
        }
        XCTAssertEqual(failures.all, [])
        XCTAssertEqual(try names(), ["session"])
    }

    func testWhatCrashedWritersLeftIsRemovedInTime() throws {
        func left(_ name: String, minutes: Double) {
            let time = Date(timeIntervalSinceNow: -60 * minutes)
            let file = folder.appendingPathComponent(name).path
            XCTAssert(FileManager.default.createFile(atPath: file, contents: nil, attributes: [.modificationDate: time]))
            try? FileManager.default.setAttributes([.modificationDate: time], ofItemAtPath: file)
        }
        left("session.01234567-89AB-CDEF-0123-456789ABCDEF.new", minutes: 62)
        let kept = [
            ("other.01234567-89AB-CDEF-0123-456789ABCDEF.new", 62.0),
            ("session.01234567-89AB-CDEF-0123-456789ABCDE.new", 62),
            ("session.11234567-89AB-CDEF-0123-456789ABCDEF.new", 58),
            ("session.new", 62),
        ]
        for (name, minutes) in kept { left(name, minutes: minutes) }
        try FileSessionStore(path: path).save(session: session(3))
        XCTAssertEqual(try names(), (kept.map(\.0) + ["session"]).sorted())
    }

    func testErrorsAreTold() throws {
        XCTAssertNil(try FileSessionStore(path: path).load())
        let missing = FileSessionStore(path: folder.appendingPathComponent("missing/session").path)
        XCTAssertThrowsError(try missing.save(session: session(1)))
        try FileSessionStore(path: path).save(session: session(2))
        XCTAssertEqual(try FileSessionStore(path: path).load(), session(2))
    }
}

private final class Failures: @unchecked Sendable {
    private let lock = NSLock()
    private var told: [String] = []

    var all: [String] { lock.withLock { told } }

    func add(_ failure: String) {
        lock.withLock { told.append(failure) }
    }
}
