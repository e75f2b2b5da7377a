import DemoLogic
import XCTest

final class DrawingTests: XCTestCase {
    func testADrawingBecomesACentredDigit() {
        for (digit, strokes) in drawings {
            var drawing = Drawing()
            for stroke in strokes { drawing.add(stroke) }
            let pixels = drawing.pixels()
            XCTAssertEqual(pixels.count, 784)
            let mass = pixels.reduce(0) { $0 + Double($1) }
            let x = pixels.indices.reduce(0) { $0 + Double(pixels[$1]) * (Double($1 % 28) + 0.5) } / mass
            let y = pixels.indices.reduce(0) { $0 + Double(pixels[$1]) * (Double($1 / 28) + 0.5) } / mass
            XCTAssertEqual(x, 14, accuracy: 0.1, "\(digit)")
            XCTAssertEqual(y, 14, accuracy: 0.1, "\(digit)")
            let rows = Set(pixels.indices.filter { pixels[$0] > 0 }.map { $0 / 28 })
            XCTAssert((20...22).contains(rows.count), "\(digit): \(rows.count) rows")
        }
        XCTAssertEqual(Drawing().pixels(), [UInt8](repeating: 0, count: 784))
        var tap = Drawing()
        tap.begin(Point(x: 3, y: 3))
        // A dot in the middle, where four pixels meet: from each one's centre it is half a diagonal away.
        let dot = tap.pixels()
        XCTAssertEqual([13 * 28 + 13, 13 * 28 + 14, 14 * 28 + 13, 14 * 28 + 14].map { dot[$0] }, [228, 228, 228, 228])
        XCTAssertEqual(dot.max(), 228)
    }
}
