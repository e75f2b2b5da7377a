import DemoLogic
import Foundation
import XCTest

/// Digits as a finger draws them, on an area 300 wide and high.
let drawings: [(digit: Int, strokes: [[Point]])] = [
    (1, [line((150, 60), (145, 240))]),
    (7, [line((80, 70), (220, 70)) + line((220, 70), (130, 240))]),
    (0, [stride(from: Float(0), through: 2 * .pi, by: 0.2).map { Point(x: 150 + 60 * sin($0), y: 150 - 90 * cos($0)) }]),
]

private func line(_ from: (Float, Float), _ to: (Float, Float)) -> [Point] {
    stride(from: Float(0), through: 1, by: 0.1).map {
        Point(x: from.0 + $0 * (to.0 - from.0), y: from.1 + $0 * (to.1 - from.1))
    }
}

@MainActor
func draw(_ strokes: [[Point]], on model: DigitViewModel) {
    for stroke in strokes {
        model.strokeBegan(stroke[0])
        stroke.dropFirst().forEach(model.strokeMoved)
        model.strokeEnded()
    }
}

extension Drawing {
    mutating func add(_ stroke: [Point]) {
        begin(stroke[0])
        for point in stroke.dropFirst() { extend(point) }
    }
}

/// Waits until `condition` holds.
@MainActor
func until(_ seconds: Double = 30, _ condition: () -> Bool, line: UInt = #line) async throws {
    let end = Date() + seconds
    while !condition() {
        guard Date() < end else { return XCTFail("not in time", line: line) }
        try await Task.sleep(nanoseconds: 5_000_000)
    }
}
