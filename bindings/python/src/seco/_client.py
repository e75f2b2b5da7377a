"""The client that blocks."""

from __future__ import annotations

import asyncio
import os
import threading
from types import TracebackType
from typing import Any, Callable, Coroutine, Iterable, List, Optional, Tuple, Type, TypeVar, Union

from numpy.typing import ArrayLike

from . import _fork, _input, aio
from ._results import Cost, Prediction, Progress
from ._store import SessionStore

T = TypeVar("T")

_starting = threading.Lock()
_loop: Optional[asyncio.AbstractEventLoop] = None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Waits for `work`, on a thread beside the caller's: a notebook's has a loop of its own. An interrupt cancels it."""
    global _loop
    try:
        _fork.start()
        with _starting:
            if _loop is None:
                _loop = asyncio.new_event_loop()
                threading.Thread(target=_loop.run_forever, name="seco-wait", daemon=True).start()
    except BaseException:
        work.close()
        raise
    future = asyncio.run_coroutine_threadsafe(work, _loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
    finally:
        # An error's traceback has this frame, and the future has the error.
        del future


class Client:
    """A connection to a gateway, with an open session.

    Use it by ``with``, or call :meth:`close`. Any number of threads may use it at a time. It does not survive a
    ``fork``: start processes with multiprocessing's ``"spawn"``.

    :param deployment: the deployment file's path, or its text: gateway, servers, keys and model. From a source that
        the user trusts.
    :param store: where the session is kept, so that the next start opens no new one: a path, or an object with
        ``load`` and ``save`` (:class:`SessionStore`). What it holds is secret. None opens a session every time.
    :param token: the text of a token, where the gateway's operator asks for one. Keep it where secrets are kept.
    :param connect_timeout: limit for reaching the gateway, and again for opening a session, in seconds, at most 3600.
    :param request_timeout: limit for one request in all, in seconds, at most 3600.
    :param transport: ``"quic"`` or ``"tcp"``; None takes QUIC, and TCP where a network blocks UDP.
    :param session_max_age_days: age at which a session is given up and a new one opened, at least 1.
    :param keep_sent: keep the masked bytes of the last request for :attr:`last_sent`.

    Connects at once; raises any :class:`SecoError` but ``WrongInputSize``.
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
        self._aio = aio.Client(
            deployment,
            store,
            token,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            transport=transport,
            session_max_age_days=session_max_age_days,
            keep_sent=keep_sent,
        )
        _run(self._aio.connect())

    def infer(self, input: ArrayLike, progress: Optional[Callable[[Progress], object]] = None) -> Prediction:
        """Runs the model on one input.

        :param input: an array of :attr:`input_shape`; axes of 1 do not matter, a first axis that counts one input may
            stand before it, and all values may be in one axis. Bytes (``uint8``) are the model's input values; other
            numbers (floats, integers, bools) become them as the deployment file says (``[model.quantise]``), on the
            device.
        :param progress: is told how the request is getting on, on a thread of the package's; it should return at once,
            and must not call a client. What it raises is logged.

        Raises :class:`WrongInputSize` for other axes; :class:`InvalidConfiguration` for what is not a number, or where
        the file does not say how numbers become input values; any other :class:`SecoError` but ``UntrustedServer``.
        """
        return _run(self._aio.infer(input, None if progress is None else _outside(progress)))

    def infer_many(self, inputs: Union[ArrayLike, Iterable[ArrayLike]]) -> List[Prediction]:
        """Runs the model on every one of `inputs`, up to eight at a time; results in their order.

        :param inputs: an array whose first axis counts the inputs, or several arrays.

        Raises the error of the first input that failed. The others were run all the same.
        """
        return _run(self._aio.infer_many(inputs))

    def probe(self, up: int, down: int) -> None:
        """Sends `up` random bytes and receives `down` (at most 65,535): what a plain request of that size costs."""
        _run(self._aio.probe(up, down))

    def plain_request(self) -> None:
        """A plain request as large as a private one, to compare :attr:`last_cost` with."""
        _run(self._aio.plain_request())

    @property
    def input_shape(self) -> Tuple[int, ...]:
        """Extents of an input, without the axis that counts inputs: ``(1, 28, 28)``, say."""
        return self._aio.input_shape

    @property
    def transport(self) -> str:
        """What carries the requests at present: ``"quic"`` or ``"tcp"``."""
        return self._aio.transport

    @property
    def last_cost(self) -> Cost:
        """Cost of the last request that ended, private or plain."""
        return self._aio.last_cost

    @property
    def total_cost(self) -> Cost:
        """Cost of everything so far: connecting, the session, and all requests."""
        return self._aio.total_cost

    @property
    def last_sent(self) -> Optional[bytes]:
        """The masked input that the last request sent: what others get to see. None without ``keep_sent``."""
        return self._aio.last_sent

    def network_changed(self) -> None:
        """To be called when the device changed its network or woke up: the connection moves there."""
        self._aio.network_changed()

    def close(self) -> None:
        """Tells the gateway that the client is done; all requests fail with ``Closed``."""
        _run(self._aio.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()


def _outside(progress: Callable[[Progress], object]) -> Callable[[Progress], object]:
    """A client called there would wait for the very thread that calls."""

    def tell(now: Progress) -> None:
        with _fork.library_thread():
            progress(now)

    return tell
