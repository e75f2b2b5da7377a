"""Clients for an application's tests: they answer by script, without servers and without a network.

>>> import numpy, seco, seco.testing
>>> busy = seco.testing.failure(seco.Busy, retry_after=2.0)
>>> client = seco.testing.FakeClient([seco.testing.Reply(label=7), busy], input_shape=(1, 28, 28))
>>> client.infer(numpy.zeros((28, 28))).label
7

Arrays, errors and results go through the package's own code, as with a real client. Two things are simpler: numbers need
no ``[model.quantise]``, and the texts of errors are the test's.
"""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Iterable, List, Optional, Sequence, Set, Tuple, Type, Union

import numpy as np
from numpy.typing import NDArray

from . import _client, aio
from ._errors import Closed, InvalidConfiguration, SecoError, WrongInputSize
from ._results import Cost, Progress

__all__ = ["FakeAsyncClient", "FakeClient", "Reply", "failure"]

_NOTHING = Cost(0, 0, 0, 0, None, 0)
#: One reply of a script; an error alone fails at once.
Script = Iterable[Union["Reply", SecoError]]


def failure(kind: Type[SecoError], reason: str = "by script", **details: Any) -> SecoError:
    """An error with what this kind tells beside its reason: ``failure(seco.Busy, retry_after=2.0)``."""
    error = kind(reason)
    for name, value in details.items():
        if not hasattr(error, name):
            raise TypeError(f"{kind.__name__} has no {name}")
        setattr(error, name, value)
    return error


@dataclass(frozen=True)
class Reply:
    """What becomes of one inference."""

    #: The class; used where there are no `logits`.
    label: int = 0
    #: The model's integers.
    logits: Optional[Sequence[int]] = None
    #: Instead of an answer.
    error: Optional[SecoError] = None
    #: Seconds until it comes, after all progress was told.
    delay: float = 0.0
    #: What is told meanwhile.
    progress: Sequence[Progress] = (Progress("sent"),)
    #: What it costs; None counts the bytes of input and answer.
    cost: Optional[Cost] = None
    outside_calibration: bool = False


class _Scripted:
    """In the place of the library's object."""

    def __init__(
        self,
        script: Script,
        shape: Sequence[int],
        bits: int,
        values: int,
        classes: Optional[Sequence[str]],
        keep_sent: bool,
    ) -> None:
        replies = (Reply(error=reply) if isinstance(reply, SecoError) else reply for reply in script)
        self._replies, self._shape, self._values, self._classes = list(replies), tuple(shape), values, classes
        self._bits = bits
        self._keep_sent, self._sent = keep_sent, None  # type: Tuple[bool, Optional[bytes]]
        self._last, self._total = _NOTHING, _NOTHING
        self._closed = False
        self._open: Set[asyncio.Event] = set()

    def input_shape(self) -> Tuple[int, ...]:
        return self._shape

    def model(self) -> Any:
        return SimpleNamespace(
            input_len=self._bytes, input_bits=self._bits, answer_len=4 * self._values, values=self._values
        )

    def transport(self) -> Any:
        return SimpleNamespace(name="QUIC")

    def last_cost(self) -> Cost:
        return self._last

    def total_cost(self) -> Cost:
        return self._total

    def last_sent(self) -> Optional[bytes]:
        return self._sent

    def network_changed(self) -> None:
        pass

    def answers(self, prediction: Any) -> List[Any]:
        names = self._classes
        answer = SimpleNamespace(
            name="output",
            shape=[self._values],
            kind=SimpleNamespace(name="CLASSES"),
            last=SimpleNamespace(name="NONE"),
            values=[float(integer) for integer in prediction.logits],
            finished=[float(integer) for integer in prediction.logits],
            probabilities=None,
            label=prediction.label,
            class_name=names[prediction.label] if names and prediction.label < len(names) else None,
        )
        return [answer]

    async def infer_array(self, npy: bytes, listener: Any = None) -> Any:
        inputs = self._inputs(npy)
        if inputs != 1:
            raise self._wrong(inputs * self._len)
        return await self._infer(listener)

    async def infer_arrays(self, arrays: List[bytes]) -> List[Any]:
        inputs = sum(map(self._inputs, arrays))
        answered = await asyncio.gather(*(self._infer(None) for _ in range(inputs)), return_exceptions=True)
        for one in answered:
            if isinstance(one, BaseException):
                raise one
        return answered

    async def probe(self, up: int, down: int) -> None:
        if down > 65535:
            raise InvalidConfiguration(f"a probe of {down} bytes exceeds 65535")
        self._check()
        self._spend(Cost(up, down, 1, 1, None, 0))

    async def shutdown(self) -> None:
        self._closed = True
        for request in self._open:
            request.set()

    @property
    def _len(self) -> int:
        """Values of an input."""
        return int(np.prod(self._shape, dtype=np.int64))

    @property
    def _bytes(self) -> int:
        """Of an input: two for each value of more than 8 bits."""
        return self._len * (2 if self._bits > 8 else 1)

    def _wrong(self, got: int) -> SecoError:
        reason = f"the model takes {self._len} input values, got {got}"
        return failure(WrongInputSize, reason, expected=self._len, got=got)

    def _inputs(self, npy: bytes) -> int:
        """How many inputs are in an array, by the rules of the library: axes of 1 do not matter."""
        array: NDArray[Any] = np.load(io.BytesIO(npy), allow_pickle=False)
        count = self._counted(array)
        if array.dtype.kind not in "uifb" or not np.isfinite(array).all():
            raise InvalidConfiguration("the input has a value that is not a number")
        return count

    def _counted(self, array: NDArray[Any]) -> int:
        model = [extent for extent in self._shape if extent != 1]
        if array.size == self._len and [extent for extent in array.shape if extent != 1] in (model, [self._len]):
            return 1
        rest = [extent for extent in array.shape[1:] if extent != 1]
        if array.ndim > 1 and rest in (model, [self._len]):
            return int(array.shape[0])
        raise self._wrong(array.size)

    def _check(self) -> None:
        if self._closed:
            raise Closed("connection lost: the client is closed; try again")

    def _spend(self, cost: Cost) -> None:
        def both(one: Optional[int], other: Optional[int]) -> Optional[int]:
            return None if one is None and other is None else (one or 0) + (other or 0)

        total = self._total
        self._last = cost
        self._total = Cost(
            total.bytes_up + cost.bytes_up,
            total.bytes_down + cost.bytes_down,
            total.datagrams_up + cost.datagrams_up,
            total.datagrams_down + cost.datagrams_down,
            both(total.cpu_us, cost.cpu_us),
            total.wall_us + cost.wall_us,
        )

    async def _infer(self, listener: Any) -> Any:
        self._check()
        reply = self._replies.pop(0) if self._replies else Reply()
        if self._keep_sent:
            # Any bytes but the input's: the mask is not the fake's business.
            self._sent = bytes((151 * index + 77) % 256 for index in range(self._bytes))
        for now in reply.progress:
            if listener is not None:
                listener.tell(now)
        closed = asyncio.Event()
        self._open.add(closed)
        try:
            # Of zero seconds too: others get their turn, as while a real request waits.
            await asyncio.wait_for(closed.wait(), max(reply.delay, 0.001))
        except asyncio.TimeoutError:
            pass
        finally:
            self._open.discard(closed)
        self._check()
        spent = Cost(self._bytes, 4 * self._values, 1, 1, None, round(reply.delay * 1e6))
        self._spend(spent if reply.cost is None else reply.cost)
        if reply.error is not None:
            raise reply.error
        logits = reply.logits
        if logits is None:
            logits = [int(index == reply.label) for index in range(self._values)]
        return SimpleNamespace(
            label=int(np.argmax(logits)), logits=list(logits), outside_calibration=reply.outside_calibration
        )


class _Fake:
    """The arguments of both fakes."""

    def __init__(
        self,
        script: Script = (),
        *,
        input_shape: Sequence[int] = (1, 28, 28),
        input_bits: int = 8,
        values: int = 10,
        classes: Optional[Sequence[str]] = None,
        keep_sent: bool = False,
    ) -> None:
        """
        :param script: a reply or an error for each inference, in their order; when they are used up, label 0.
        :param input_shape: extents of an input.
        :param input_bits: bits of an input value, 1 to 16.
        :param values: how many integers the model gives.
        :param classes: names of the classes.
        :param keep_sent: as for :class:`seco.Client`.
        """
        # What `Connection` would have after connecting.
        self._token: Optional[str] = None
        self._connecting: Optional[Tuple[asyncio.AbstractEventLoop, asyncio.Lock]] = None
        self._connected: Any = _Scripted(script, input_shape, input_bits, values, classes, keep_sent)


class FakeClient(_Fake, _client.Client):
    """A :class:`seco.Client` that answers by script."""


class FakeAsyncClient(_Fake, aio.Client):
    """A :class:`seco.aio.Client` that answers by script."""
