"""Small networks whose inputs have the sizes of MNIST, CIFAR and a 224x224 photo, as ONNX files.

What the servers compute makes no difference to a device: it sends its input's bytes and takes ten logits.
So these networks are small enough to be garbled quickly: a convolution without overlap, ReLU, and a fully
connected layer, with fixed pseudo-random weights. No library is needed: an ONNX file is a protobuf message,
which is a sequence of fields, each a number of its own.
"""

import random
import struct
from pathlib import Path

CLASSES = 10


class Network:
    """Input [channels, side, side]; `outputs` channels of non-overlapping squares of `stride` pixels."""

    def __init__(self, name, channels, side, stride, outputs):
        self.name, self.channels, self.side = name, channels, side
        self.stride, self.outputs = stride, outputs
        self.payload = channels * side * side

    def write(self, folder):
        """Writes the network and two inputs that calibrate it; returns both paths."""
        rng = random.Random(self.name)
        onnx, inputs = Path(folder) / "model.onnx", Path(folder) / "inputs.npy"
        onnx.write_bytes(self._model(rng))
        shape = (2, self.channels, self.side, self.side)
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
        header = header.ljust(117) + "\n"
        inputs.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
                           + rng.randbytes(2 * self.payload))
        return onnx, inputs

    def _model(self, rng):
        fan_in = self.channels * self.stride**2
        hidden = self.outputs * (self.side // self.stride) ** 2
        constants = [
            _tensor("w1", [self.outputs, self.channels, self.stride, self.stride], rng, fan_in),
            _tensor("b1", [self.outputs], rng, fan_in),
            _tensor("w2", [CLASSES, hidden], rng, hidden),
            _tensor("b2", [CLASSES], rng, hidden),
        ]
        nodes = [
            _node("Conv", ["input", "w1", "b1"], "c", [_ints("kernel_shape", [self.stride] * 2),
                                                       _ints("strides", [self.stride] * 2)]),
            _node("Relu", ["c"], "r", []),
            _node("Flatten", ["r"], "f", []),
            _node("Gemm", ["f", "w2", "b2"], "logits", [_int("transB", 1)]),
        ]
        graph = b"".join(
            [_bytes(1, node) for node in nodes] + [_bytes(2, self.name.encode())]
            + [_bytes(5, constant) for constant in constants]
            + [_bytes(11, _value("input", [1, self.channels, self.side, self.side])),
               _bytes(12, _value("logits", [1, CLASSES]))])
        # IR version, graph, and version 13 of the default operators.
        return _number(1, 7) + _bytes(7, graph) + _bytes(8, _number(2, 13))


NETWORKS = [
    Network("mnist-size", 1, 28, 4, 4),
    Network("cifar-size", 3, 32, 4, 4),
    Network("photo-size", 3, 224, 16, 2),
]

# Bundles made at a time, which is how often a device asks in one run.
POOLS = {"mnist-size": 25, "cifar-size": 25, "photo-size": 4}


def _varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field, value):
    return _varint(field << 3) + _varint(value)


def _bytes(field, value):
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _tensor(name, shape, rng, fan_in):
    count = 1
    for extent in shape:
        count *= extent
    bound = fan_in**-0.5
    values = struct.pack(f"<{count}f", *(rng.uniform(-bound, bound) for _ in range(count)))
    # TensorProto: dims, data_type FLOAT, name, raw_data.
    dims = b"".join(_number(1, extent) for extent in shape)
    return dims + _number(2, 1) + _bytes(8, name.encode()) + _bytes(9, values)


def _node(kind, inputs, output, attributes):
    return (b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode())
            + _bytes(4, kind.encode()) + b"".join(_bytes(5, attribute) for attribute in attributes))


def _int(name, value):
    return _bytes(1, name.encode()) + _number(3, value) + _number(20, 2)


def _ints(name, values):
    return _bytes(1, name.encode()) + b"".join(_number(8, value) for value in values) + _number(20, 7)


def _value(name, shape):
    dims = b"".join(_bytes(1, _number(1, extent)) for extent in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dims)))
