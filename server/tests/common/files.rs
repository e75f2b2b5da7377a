//! ONNX networks and NumPy arrays for tests.
// Each test file uses a part of it.
#![allow(dead_code)]

use seco_lab::onnx::{file, floats, integer, node};

/// A constant with small pseudo-random values.
fn tensor(name: &str, shape: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i * 7919 + 13 * name.len()) % 101) as f32 / 101.0 - 0.5);
    floats(name, shape, values)
}

/// A network: a convolution, ReLU, and a fully connected layer with so many outputs.
pub fn network(input: [usize; 3], outputs: usize) -> Vec<u8> {
    named("c", input, outputs)
}

/// The same with another name of the convolution's output, which names the layer.
pub fn named(convolution: &str, input: [usize; 3], outputs: usize) -> Vec<u8> {
    let between = [node("Relu", &[convolution], "r", &[]), node("Flatten", &["r"], "f", &[])];
    with_between(convolution, &between, input, outputs)
}

/// One with nodes that are refused between layers: an LRN named `n` and a Softplus named `s`.
pub fn refused(input: [usize; 3], outputs: usize) -> Vec<u8> {
    let between = [
        node("LRN", &["c"], "n", &integer("size", 3)),
        node("Relu", &["n"], "r", &[]),
        node("Softplus", &["r"], "s", &[]),
        node("Flatten", &["s"], "f", &[]),
    ];
    with_between("c", &between, input, outputs)
}

/// A convolution, nodes that make `f` of its output, and a matrix.
fn with_between(convolution: &str, between: &[Vec<u8>], input: [usize; 3], outputs: usize) -> Vec<u8> {
    let [channels, height, width] = input;
    let hidden = 4 * (height - 2) * (width - 2);
    let first = node("Conv", &["x", "w", "b"], convolution, &[]);
    let last = node("Gemm", &["f", "v", "d"], "y", &integer("transB", 1));
    let nodes = [&first[..], &between.concat(), &last].concat();
    let constants = [
        tensor("w", &[4, channels, 3, 3]),
        tensor("b", &[4]),
        tensor("v", &[outputs, hidden]),
        tensor("d", &[outputs]),
    ];
    let input = [1, channels, height, width];
    file("made", &nodes, &constants.concat(), ("x", &input), ("y", &[1, outputs]))
}

/// An uint8 array in NumPy's format.
pub fn npy(shape: &[usize], values: &[u8]) -> Vec<u8> {
    npy_of("|u1", shape, values)
}

/// One of a type, of which `values` are the bytes.
pub fn npy_of(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}").into_bytes();
    header.resize((10 + header.len() + 1).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, &header, values].concat()
}

/// So many different bytes from 0 to `largest`.
pub fn values(count: usize, largest: u8) -> Vec<u8> {
    (0..count).map(|i| ((i * i * 31 + i * 7) % (usize::from(largest) + 1)) as u8).collect()
}
