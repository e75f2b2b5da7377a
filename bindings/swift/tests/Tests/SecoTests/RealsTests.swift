import Foundation
import XCTest

@testable import Seco

/// Real numbers on their way to the library.
final class RealsTests: XCTestCase {
    func testNumbersBecomeFourBytesEachTheLeastFirst() {
        XCTAssertEqual(littleEndian([1, -2]), Data([0, 0, 128, 63, 0, 0, 0, 192]))
        XCTAssertEqual(littleEndian([]), Data())
        let all: [Float] = [0.1, -0.0, .greatestFiniteMagnitude, .leastNonzeroMagnitude, .nan, -.infinity]
        let bytes = [UInt8](littleEndian(all))
        for (index, value) in all.enumerated() {
            let bits = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[4 * index + $1]) << (8 * UInt32($1)) }
            XCTAssertEqual(bits, value.bitPattern)
        }
    }
}
