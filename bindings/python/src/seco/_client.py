"""The client that blocks."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any, Callable, Coroutine, Iterable, List, Optional, Type, TypeVar, Union

from numpy.typing import ArrayLike

from . import _connection, _fork, _input
from ._results import Prediction, Progress

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


class Client(_connection.Connection):
    """A connection to a gateway, with an open session.

    Use it by ``with``, or call :meth:`close`. Any number of threads may use it at a time. It does not survive a
    ``fork``: start processes with multiprocessing's ``"spawn"``.

    Connects at once; raises any :class:`SecoError` but ``WrongInputSize``.
    """

    def _begin(self) -> None:
        _run(self._connect())

    def infer(self, input: ArrayLike, progress: Optional[Callable[[Progress], object]] = None) -> Prediction:
        """Runs the model on one input.

        :param input: an array of :attr:`input_shape`; axes of 1 do not matter, a first axis that counts one input may
            stand before it, and all values may be in one axis. Bytes (``uint8``; ``uint16`` too where the model's values
            have more than 8 bits) are the model's input values; other numbers (floats, integers, bools) become them as the deployment file says (``[model.quantise]``), on the
            device.
        :param progress: is told how the request is getting on, on a thread of the package's; it should return at once,
            and must not call a client. What it raises is logged.

        Raises :class:`WrongInputSize` for other axes; :class:`InvalidConfiguration` for what is not a number, or where
        the file does not say how numbers become input values; any other :class:`SecoError` but ``UntrustedServer``.
        """
        return _run(self._infer(input, None if progress is None else _outside(progress)))

    def infer_many(self, inputs: Union[ArrayLike, Iterable[ArrayLike]]) -> List[Prediction]:
        """Runs the model on every one of `inputs`, up to eight at a time; results in their order.

        :param inputs: an array whose first axis counts the inputs, or several arrays.

        Raises what :meth:`infer` does of an input that cannot be used, before anything is sent; then the error of the first
        request that failed. The others were run all the same.
        """
        return _run(self._infer_many(inputs))

    def probe(self, up: int, down: int) -> None:
        """Sends `up` random bytes and receives `down` (at most 65,535): what a plain request of that size costs."""
        _run(self._probe(up, down))

    def plain_request(self) -> None:
        """A plain request as large as a private one, to compare :attr:`last_cost` with."""
        _run(self._plain_request())

    def close(self) -> None:
        """Tells the gateway that the client is done; all requests fail with ``Closed``."""
        if not _fork.ending():
            _run(self._close())

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


def fetch_deployment_update(
    deployment: _input.Deployment, *, connect_timeout: float = 10.0, transport: Optional[str] = None
) -> Optional[str]:
    """Asks the gateway for the text of a deployment file that takes the place of `deployment`: signed by the owner whom the
    present one names, and newer. None where there is none. It was checked; keep it beside the old one until a client has
    connected with it. Also helps where a session is refused because servers or model are others now.

    :param deployment: the present file's path, or its text.
    :param connect_timeout: limit for reaching the gateway, and again for the file, in seconds, at most 3600.
    :param transport: as for :class:`Client`.

    Raises ``InvalidConfiguration`` if the present file names no owner, or what came is not to be used; ``Network``,
    ``Timeout``, ``UntrustedServer``, ``IncompatibleServer``.
    """
    return _run(_connection.fetch_update(deployment, connect_timeout, transport))
