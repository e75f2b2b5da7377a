"""Results as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Output:
    """One output of a prediction."""

    #: Its name in the network's file.
    name: str
    #: Its extents without the batch axis.
    shape: Tuple[int, ...]
    #: What it is to be read as: ``"classes"``, ``"binary"`` (yes or no) or ``"values"``.
    kind: str
    #: What the network does last, which the servers leave to the device: ``"none"``, ``"softmax"``, ``"log_softmax"``,
    #: ``"sigmoid"``, ``"tanh"``, ``"argmax"``; or ``"index"``, where the servers tell the largest value's index alone.
    last: str
    #: The network's numbers before what it does last; of ``shape``.
    values: NDArray[np.float64]
    #: The network's own answer: its numbers with what it does last; of ``shape``, but of an argmax one index for every row.
    finished: NDArray[np.float64]
    #: Where the network ends with a softmax or its logarithm (they add up to 1) or a sigmoid (each for itself); of ``shape``.
    probabilities: Optional[NDArray[np.float64]]
    #: Index of the largest value; of ``"binary"`` 1 for yes and 0 for no; of ``"values"`` no class.
    label: int
    #: The label's name, where the deployment file gives names.
    class_name: Optional[str]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about an input: of its first output, and in ``outputs`` of each."""

    #: The class that the first output tells; 0 where it tells none.
    label: int
    #: The label's name, where the deployment file gives names.
    class_name: Optional[str]
    #: The first output's numbers, before what the network does last; of the output's shape.
    values: NDArray[np.float64]
    #: The servers' integers, of all outputs one after the other, one axis; equal to the plaintext fixed-point model's.
    logits: NDArray[np.int32]
    #: The first output's probabilities, where the network ends with a softmax or a sigmoid.
    probabilities: Optional[NDArray[np.float64]]
    #: The input has values beyond those that calibrated the model: the answer may be wrong. Found on the device; no
    #: server learns it.
    outside_calibration: bool
    #: Every output, in the order of the network's file.
    outputs: Tuple[Output, ...]


@dataclass(frozen=True)
class Cost:
    """What was spent on the network, in computing and in waiting. Requests that run side by side share it."""

    #: Bytes from the device: in UDP packets over QUIC, of the TLS stream over TCP.
    bytes_up: int
    #: Bytes to the device.
    bytes_down: int
    #: UDP packets from the device.
    datagrams_up: int
    #: UDP packets to the device.
    datagrams_down: int
    #: CPU time of the library's thread in microseconds, without Python's; None where the system has no such clock.
    cpu_us: Optional[int]
    #: Time from call to result in microseconds, in the library.
    wall_us: int


@dataclass(frozen=True)
class Progress:
    """How a request is getting on."""

    #: ``"sent"`` (the masked input left the device; once more if it was lost), ``"queued"`` (it waits until the servers
    #: have made what it needs), ``"running"`` (it had to wait, and runs now) or ``"waiting"`` (a server is away, and the
    #: request is made again).
    state: str
    #: Place in the queue, the next is 1; None unless queued.
    position: Optional[int] = None
    #: The servers' estimate of the wait in seconds; None unless queued.
    wait: Optional[float] = None
    #: Who is waited for: a place in the deployment file, 0 for the gateway; None unless waiting.
    server: Optional[int] = None


def _shaped(numbers: List[float], shape: Tuple[int, ...]) -> NDArray[np.float64]:
    array = np.array(numbers, np.float64)
    # An argmax has fewer.
    return array.reshape(shape) if array.size == int(np.prod(shape, dtype=np.int64)) else array


def output(answer: Any) -> Output:
    """From the library's."""
    shape = tuple(answer.shape)
    probabilities = answer.probabilities
    return Output(
        name=answer.name,
        shape=shape,
        kind=answer.kind.name.lower(),
        last=answer.last.name.lower(),
        values=_shaped(answer.values, shape),
        finished=_shaped(answer.finished, shape),
        probabilities=None if probabilities is None else _shaped(probabilities, shape),
        label=answer.label,
        class_name=answer.class_name,
    )


def prediction(native: Any, answers: List[Any]) -> Prediction:
    """From the library's."""
    outputs = tuple(output(answer) for answer in answers)
    first = outputs[0]
    return Prediction(
        label=native.label,
        class_name=first.class_name,
        values=first.values,
        logits=np.array(native.logits, np.int32),
        probabilities=first.probabilities,
        outside_calibration=native.outside_calibration,
        outputs=outputs,
    )


def cost(native: Any) -> Cost:
    """From the library's."""
    return Cost(
        bytes_up=native.bytes_up,
        bytes_down=native.bytes_down,
        datagrams_up=native.datagrams_up,
        datagrams_down=native.datagrams_down,
        cpu_us=native.cpu_us,
        wall_us=native.wall_us,
    )


def progress(native: Any) -> Progress:
    """From the library's."""
    if native.is_QUEUED():
        return Progress("queued", native.position, native.wait_ms / 1000)
    if native.is_WAITING():
        return Progress("waiting", server=native.server)
    if native.is_SENT():
        return Progress("sent")
    if native.is_RUNNING():
        return Progress("running")
    raise TypeError(f"{type(native).__name__} is no state of a request")
