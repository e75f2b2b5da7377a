//! ONNX files, written field by field, for networks that nobody trained: an ONNX file is a protobuf message, a sequence
//! of numbered fields. The numbers are those of `onnx.proto`.

/// A field that is a number.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field that has a length: text, bytes, or a message.
pub fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
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

/// A list of integers as an attribute of a node.
pub fn integers(name: &str, values: &[u64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|&value| number(8, value)).collect();
    bytes(5, &[&bytes(1, name.as_bytes())[..], &values, &number(20, 7)].concat())
}

/// One integer as an attribute.
pub fn integer(name: &str, value: u64) -> Vec<u8> {
    bytes(5, &[bytes(1, name.as_bytes()), number(3, value), number(20, 2)].concat())
}

/// A step of a graph.
pub fn node(op: &str, inputs: &[&str], output: &str, attributes: &[u8]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name.as_bytes())).collect();
    let node = [&inputs[..], &bytes(2, output.as_bytes()), &bytes(4, op.as_bytes()), attributes].concat();
    bytes(1, &node)
}

/// A constant of floats, row by row.
pub fn floats(name: &str, shape: &[usize], values: impl Iterator<Item = f32>) -> Vec<u8> {
    constant(name, shape, 1, &values.flat_map(f32::to_le_bytes).collect::<Vec<_>>())
}

/// A constant list of 64-bit integers.
pub fn longs(name: &str, values: &[u64]) -> Vec<u8> {
    constant(
        name,
        &[values.len()],
        7,
        &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(),
    )
}

fn constant(name: &str, shape: &[usize], data_type: u64, data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|&axis| number(1, axis as u64)).collect();
    bytes(5, &[dims, number(2, data_type), bytes(8, name.as_bytes()), bytes(9, data)].concat())
}

/// What goes into a graph or comes out of it: name and shape.
pub type Value<'a> = (&'a str, &'a [usize]);

/// A whole file, from [`node`]s and constants one after the other.
pub fn file(name: &str, nodes: &[u8], constants: &[u8], input: Value<'_>, output: Value<'_>) -> Vec<u8> {
    let value = |(name, shape): Value<'_>| {
        let dims: Vec<u8> = shape.iter().flat_map(|&axis| bytes(1, &number(1, axis as u64))).collect();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &[number(1, 1), bytes(2, &dims)].concat()))].concat()
    };
    let graph =
        [nodes, &bytes(2, name.as_bytes()), constants, &bytes(11, &value(input)), &bytes(12, &value(output))]
            .concat();
    [number(1, 7), bytes(7, &graph), bytes(8, &number(2, 13))].concat()
}
