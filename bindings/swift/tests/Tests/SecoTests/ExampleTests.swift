import Foundation
import Seco
import SecoTesting
import XCTest

// The README has what is between these lines.
// begin
@MainActor final class DigitModel {
    private(set) var shown = ""
    private let client: any InferenceClient

    init(client: any InferenceClient) { self.client = client }

    func ask(_ pixels: Data) async {
        do {
            shown = "It is \(try await client.infer(pixels).label)"
        } catch SecoError.Busy(let retryAfterMs) {
            shown = "Try again in \(retryAfterMs / 1000) s"
        } catch {
            shown = "It did not work"
        }
    }
}

final class DigitModelTests: XCTestCase {
    @MainActor func testABusyServerIsToldAndTheNextAnswerShown() async {
        let client = FakeSecoClient([.failure(.Busy(retryAfterMs: 2000)), .label(7, delay: 0.01)])
        let model = DigitModel(client: client)
        await model.ask(Data(count: 784))
        XCTAssertEqual(model.shown, "Try again in 2 s")
        await model.ask(Data(count: 784))
        XCTAssertEqual(model.shown, "It is 7")
    }
}
// end

final class ExampleTests: XCTestCase {
    func testItIsTheReadmes() throws {
        let own = try String(contentsOfFile: #filePath, encoding: .utf8)
        let readme = URL(fileURLWithPath: #filePath).appendingPathComponent("../../../../README.md").standardized
        let example = try XCTUnwrap(own.components(separatedBy: "// begin\n").dropFirst().first)
            .components(separatedBy: "// end\n")[0]
        let text = try String(contentsOf: readme, encoding: .utf8)
        XCTAssert(text.contains("import SecoTesting\n\n\(example)```"), "\(readme.path) has another example")
    }
}
