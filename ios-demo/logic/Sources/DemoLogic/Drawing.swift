import Foundation

/// A place on the drawing area, in any unit; y grows downwards.
public struct Point: Equatable, Sendable {
    public let x: Float
    public let y: Float

    public init(x: Float, y: Float) {
        self.x = x
        self.y = y
    }
}

/// What was drawn: strokes of points in the order they came.
public struct Drawing: Equatable, Sendable {
    public private(set) var strokes: [[Point]] = []

    public init() {}

    public var isEmpty: Bool { strokes.isEmpty }

    /// Starts a new stroke at `point`.
    public mutating func begin(_ point: Point) {
        strokes.append([point])
    }

    /// Goes on with the last stroke to `point`.
    public mutating func extend(_ point: Point) {
        guard !strokes.isEmpty else { return begin(point) }
        strokes[strokes.count - 1].append(point)
    }

    /// The drawing as the network was trained to see digits: `side` x `side` bytes, row by row, 0 the background
    /// and 255 ink; the digit in a box of 20 pixels, its centre of mass in the middle (as LeCun describes
    /// MNIST). Zeros where nothing was drawn.
    public func pixels() -> [UInt8] {
        let side = Drawing.side
        guard !isEmpty else { return [UInt8](repeating: 0, count: side * side) }
        let segments = segments()
        let centred = Drawing.ink(segments, dx: 0, dy: 0)
        var (mass, x, y) = (Float(0), Float(0), Float(0))
        for row in 0..<side {
            for column in 0..<side {
                let value = centred[row * side + column]
                mass += value
                x += value * (Float(column) + 0.5)
                y += value * (Float(row) + 0.5)
            }
        }
        let middle = Float(side) / 2
        let ink = Drawing.ink(segments, dx: middle - x / mass, dy: middle - y / mass)
        return ink.map { UInt8(($0 * 255).rounded()) }
    }

    /// Pixels of a side of the network's input.
    public static let side = 28

    /// Pixels of a side of the box that holds the digit.
    private static let box: Float = 20

    /// Half the pen's width in pixels.
    private static let pen: Float = 1.1

    /// Strokes as line segments in pixels, their bounding box in the middle.
    private func segments() -> [(Point, Point)] {
        var (left, right, top, bottom) = (Float.infinity, -Float.infinity, Float.infinity, -Float.infinity)
        for point in strokes.joined() {
            (left, right) = (min(left, point.x), max(right, point.x))
            (top, bottom) = (min(top, point.y), max(bottom, point.y))
        }
        let extent = max(right - left, bottom - top)
        let scale = extent > 0 ? (Drawing.box - 2 * Drawing.pen) / extent : 0
        let middle = Float(Drawing.side) / 2
        return strokes.flatMap { stroke -> [(Point, Point)] in
            let placed = stroke.map { point in
                Point(
                    x: middle + (point.x - (left + right) / 2) * scale,
                    y: middle + (point.y - (top + bottom) / 2) * scale
                )
            }
            // A tap is a stroke of one point.
            return placed.count == 1 ? [(placed[0], placed[0])] : Array(zip(placed, placed.dropFirst()))
        }
    }

    /// How much of each pixel is inked, 0 to 1: the pen is round and its edge one pixel soft.
    private static func ink(_ segments: [(Point, Point)], dx: Float, dy: Float) -> [Float] {
        var ink = [Float](repeating: 0, count: side * side)
        for (from, to) in segments {
            for row in 0..<side {
                for column in 0..<side {
                    let pixel = Point(x: Float(column) + 0.5 - dx, y: Float(row) + 0.5 - dy)
                    let covered = min(1, max(0, pen + 0.5 - distance(pixel, from, to)))
                    ink[row * side + column] = max(ink[row * side + column], covered)
                }
            }
        }
        return ink
    }

    private static func distance(_ point: Point, _ from: Point, _ to: Point) -> Float {
        let (x, y) = (to.x - from.x, to.y - from.y)
        let length = x * x + y * y
        let along = length == 0 ? 0 : ((point.x - from.x) * x + (point.y - from.y) * y) / length
        let at = min(1, max(0, along))
        let (across, down) = (point.x - from.x - at * x, point.y - from.y - at * y)
        return (across * across + down * down).squareRoot()
    }
}
