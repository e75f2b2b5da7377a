import Foundation

/// An array of bytes or of floats in NumPy's format, by rows.
struct Npy {
    let rows: Int
    private let values: Data
    private let floats: Bool

    init(_ path: String) throws {
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let start = 10 + Int(bytes[8]) + 256 * Int(bytes[9])
        let header = String(decoding: bytes[10..<start], as: UTF8.self)
        let shape = header.components(separatedBy: "(")[1]
        rows = Int(shape.components(separatedBy: ",")[0])!
        floats = header.contains("f4")
        values = Data(bytes[start...])
    }

    func row(_ index: Int) -> Data {
        let length = values.count / rows
        return Data(values[index * length..<(index + 1) * length])
    }

    func floats(_ index: Int) -> [Float] {
        precondition(floats)
        let bytes = [UInt8](row(index))
        return stride(from: 0, to: bytes.count, by: 4).map { at in
            Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) })
        }
    }
}

/// The digits that come with the servers, and their labels.
public struct Digits: Sendable {
    public let all: [Data]
    public let labels: [Int]
    /// Of the small network.
    public let small: [Data]

    public init() throws {
        let data = setting("SECO_DATA")
        let (images, labels) = (try Npy(data + "/minionn-digits-20.npy"), try Npy(data + "/minionn-labels-20.npy"))
        let small = try Npy(data + "/mlp-digits-20.npy")
        all = (0..<images.rows).map(images.row)
        self.labels = (0..<labels.rows).map { Int(labels.row($0)[0]) }
        self.small = (0..<small.rows).map(small.row)
    }

    /// The classes that the trained network in floating point prefers; empty where its outputs are not here.
    public func expected() throws -> [Int?] {
        let models = setting("SECO_MODELS")
        guard FileManager.default.fileExists(atPath: models + "/expected-minionn-mnist.npy") else { return [] }
        let known = try Npy(models + "/mnist-test-200.npy")
        let outputs = try Npy(models + "/expected-minionn-mnist.npy")
        return all.map { digit in
            guard let row = (0..<known.rows).first(where: { known.row($0) == digit }) else { return nil }
            let values = outputs.floats(row)
            return values.indices.max { values[$0] < values[$1] }
        }
    }
}
