//! ONNX networks and NumPy arrays, byte by byte: an ONNX file is a protobuf message, a sequence of numbered fields.
// Each test file uses a part of it.
#![allow(dead_code)]

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(value.len() as u64), value].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A constant with small pseudo-random values.
fn tensor(name: &str, shape: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i * 7919 + 13 * name.len()) % 101) as f32 / 101.0 - 0.5);
    let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let dims: Vec<u8> = shape.iter().flat_map(|&d| number(1, d as u64)).collect();
    [dims, number(2, 1), bytes(8, name.as_bytes()), bytes(9, &data)].concat()
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: &[u8]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name.as_bytes())).collect();
    [&inputs[..], &bytes(2, output.as_bytes()), &bytes(4, op.as_bytes()), attributes].concat()
}

fn value(name: &str, shape: &[usize]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|&d| bytes(1, &number(1, d as u64))).collect();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &[number(1, 1), bytes(2, &dims)].concat()))].concat()
}

/// A network: a convolution, ReLU, and a fully connected layer with so many outputs.
pub fn network(input: [usize; 3], outputs: usize) -> Vec<u8> {
    named("c", input, outputs)
}

/// The same with another name of the convolution's output, which names the layer.
pub fn named(convolution: &str, input: [usize; 3], outputs: usize) -> Vec<u8> {
    let [channels, height, width] = input;
    let hidden = 4 * (height - 2) * (width - 2);
    let transposed = bytes(5, &[bytes(1, b"transB"), number(3, 1), number(20, 2)].concat());
    let nodes = [
        node("Conv", &["x", "w", "b"], convolution, &[]),
        node("Relu", &[convolution], "r", &[]),
        node("Flatten", &["r"], "f", &[]),
        node("Gemm", &["f", "v", "d"], "y", &transposed),
    ];
    let constants = [
        tensor("w", &[4, channels, 3, 3]),
        tensor("b", &[4]),
        tensor("v", &[outputs, hidden]),
        tensor("d", &[outputs]),
    ];
    let graph = [
        nodes.iter().flat_map(|n| bytes(1, n)).collect(),
        bytes(2, b"made"),
        constants.iter().flat_map(|c| bytes(5, c)).collect(),
        bytes(11, &value("x", &[1, channels, height, width])),
        bytes(12, &value("y", &[1, outputs])),
    ]
    .concat();
    [number(1, 7), bytes(7, &graph), bytes(8, &number(2, 13))].concat()
}

/// An uint8 array in NumPy's format.
pub fn npy(shape: &[usize], values: &[u8]) -> Vec<u8> {
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({axes}), }}").into_bytes();
    header.resize((10 + header.len() + 1).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, &header, values].concat()
}

/// So many different bytes from 0 to `largest`.
pub fn values(count: usize, largest: u8) -> Vec<u8> {
    (0..count).map(|i| ((i * i * 31 + i * 7) % (usize::from(largest) + 1)) as u8).collect()
}
