"""The client for ``asyncio``."""

from __future__ import annotations

import asyncio
import contextlib
import os
from types import TracebackType
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, Type, Union

import numpy as np
from numpy.typing import ArrayLike

from . import _fork, _input, _native, _results, _store
from ._errors import Closed, WrongInputSize, translated
from ._results import Cost, Prediction, Progress
from ._store import SessionStore


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Before and after every call of the library."""
    _fork.start()
    try:
        yield
    except _native.SecoError as error:
        raise translated(error) from None


class _Listener(_native.ProgressListener):
    """Brings what the library's thread says to the loop of the request."""

    def __init__(self, tell: Callable[[Progress], object]) -> None:
        self._loop, self._tell = asyncio.get_running_loop(), tell

    def on_progress(self, progress: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._tell, _results.progress(progress))


class Client:
    """A connection to a gateway, with an open session, for ``asyncio``.

    ``async with seco.aio.Client("deployment.toml") as client`` connects and closes; so do ``await client.connect()`` and
    ``await client.close()``. The arguments are those of :class:`seco.Client`. A task that is cancelled cancels its
    request, and leaves the client usable. Any number of requests may run at a time.
    """

    def __init__(
        self,
        deployment: _input.Deployment,
        store: Union[SessionStore, str, os.PathLike[str], None] = None,
        token: Optional[str] = None,
        *,
        connect_timeout: float = 10.0,
        request_timeout: float = 60.0,
        transport: Optional[str] = None,
        session_max_age_days: int = 30,
        keep_sent: bool = False,
    ) -> None:
        self._config = _input.settings(
            deployment, connect_timeout, request_timeout, transport, session_max_age_days, keep_sent
        )
        self._store = _store.adapted(store)
        self._token = token
        self._connected: Any = None

    async def connect(self) -> Client:
        """Connects, and opens a session or goes on with the one in the store. Returns the client itself.

        Raises any :class:`seco.SecoError` but ``WrongInputSize``.
        """
        if self._connected is None:
            with _told():
                self._connected = await _native.SecoClient.connect(self._config, self._store, None, self._token)
        return self

    async def infer(
        self, input: ArrayLike, progress: Optional[Callable[[Progress], object]] = None
    ) -> Prediction:
        """As :meth:`seco.Client.infer`; `progress` is called in the running loop."""
        (values, cut), *more = self._inputs(input)
        if more:
            error = WrongInputSize(f"infer takes one input, the array has {1 + len(more)}: infer_many takes several")
            error.expected, error.got = len(values), len(values) * (1 + len(more))
            raise error
        with _told():
            native = self._native
            listener = None if progress is None else _Listener(progress)
            return self._prediction(await native.infer(values, listener), cut)

    async def infer_many(self, inputs: Union[ArrayLike, Iterable[ArrayLike]]) -> List[Prediction]:
        """As :meth:`seco.Client.infer_many`."""
        if isinstance(inputs, np.ndarray):
            all_inputs = self._inputs(inputs)
        else:
            all_inputs = [one for input in inputs for one in self._inputs(input)]  # type: ignore[union-attr]
        with _told():
            answered = await self._native.infer_many([values for values, _ in all_inputs])
            return [self._prediction(native, cut) for native, (_, cut) in zip(answered, all_inputs)]

    async def probe(self, up: int, down: int) -> None:
        """As :meth:`seco.Client.probe`."""
        with _told():
            await self._native.probe(up, down)

    async def plain_request(self) -> None:
        """As :meth:`seco.Client.plain_request`."""
        model = self._native.model()
        await self.probe(model.input_len, model.answer_len)

    @property
    def input_shape(self) -> Tuple[int, ...]:
        """Extents of an input, without the axis that counts inputs: ``(1, 28, 28)``, say."""
        return tuple(self._native.input_shape())

    @property
    def transport(self) -> str:
        """What carries the requests at present: ``"quic"`` or ``"tcp"``."""
        return str(self._native.transport().name).lower()

    @property
    def last_cost(self) -> Cost:
        """Cost of the last request that ended, private or plain."""
        return _results.cost(self._native.last_cost())

    @property
    def total_cost(self) -> Cost:
        """Cost of everything so far: connecting, the session, and all requests."""
        return _results.cost(self._native.total_cost())

    @property
    def last_sent(self) -> Optional[bytes]:
        """The masked input that the last request sent: what others get to see. None without ``keep_sent``."""
        sent: Optional[bytes] = self._native.last_sent()
        return sent

    def network_changed(self) -> None:
        """To be called when the device changed its network or woke up: the connection moves there."""
        with _told():
            self._native.network_changed()

    async def close(self) -> None:
        """Tells the gateway that the client is done; all requests fail with ``Closed``."""
        if self._connected is not None:
            with _told():
                await self._connected.shutdown()

    async def __aenter__(self) -> Client:
        return await self.connect()

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    @property
    def _native(self) -> Any:
        if self._connected is None:
            raise Closed("the client is not connected: use it by 'async with', or await connect() first")
        return self._connected

    def _inputs(self, array: Any) -> List[Tuple[bytes, bool]]:
        """The inputs in an array, and whether numbers were cut."""
        with _told():
            return [(input.values, input.cut) for input in self._native.array_inputs(_input.npy(array))]

    def _prediction(self, native: Any, cut: bool) -> Prediction:
        return _results.prediction(native, self._native.answers(native), cut)
