"""What both clients are: settings, one connection, and what is known without asking."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike

from . import _fork, _input, _log, _native, _results, _store
from ._errors import Closed, translated
from ._results import Cost, Prediction, Progress
from ._store import SessionStore


@contextlib.contextmanager
def told() -> Iterator[None]:
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
        self.tell(_results.progress(progress))

    def tell(self, now: Progress) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._tell, now)


class Connection:
    """A connection to a gateway, with an open session."""

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
        model: Optional[str] = None,
        log: Union[logging.Logger, str, None] = None,
    ) -> None:
        """
        :param deployment: the deployment file's path, or its text: gateway, servers, keys and models. From a source that
            the user trusts.
        :param store: where the session is kept, so that the next start opens no new one: a path, or an object with
            ``load`` and ``save`` (:class:`seco.SessionStore`). What it holds is secret. None opens a session every time.
        :param token: the text of a token, where the gateway's operator asks for one. Keep it where secrets are kept.
        :param connect_timeout: limit for reaching the gateway, and again for opening a session, in seconds, at most 3600.
        :param request_timeout: limit for one request in all, in seconds, at most 3600.
        :param transport: ``"quic"`` or ``"tcp"``; None takes QUIC, and TCP where a network blocks UDP.
        :param session_max_age_days: age at which a session is given up and a new one opened, at least 1.
        :param keep_sent: keep the masked bytes of the last request for :attr:`last_sent`.
        :param model: which model is asked, where the file names several; None where it has one. A client has one model, and each model needs a store of its own.
        :param log: a logger, or its name, that is told what the client does, and nothing that is secret. Called on the
            library's thread; its handlers must not call a client. Records have the event's name in ``seco_event``.
        """
        self._config = _input.settings(
            deployment, connect_timeout, request_timeout, transport, session_max_age_days, keep_sent, model
        )
        self._store = _store.adapted(store)
        self._token = _input.token(token)
        self._log = _log.adapted(log)
        self._connected: Any = None
        self._connecting: Optional[Tuple[asyncio.AbstractEventLoop, asyncio.Lock]] = None
        self._begin()

    def _begin(self) -> None:
        """What a new client does at once."""

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
        with told():
            self._native.network_changed()

    @property
    def _native(self) -> Any:
        _fork.check()
        if self._connected is None:
            raise Closed("the client is not connected: use it by 'async with', or await connect() first")
        return self._connected

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        # A lock is of one loop, and a client may come to live in another.
        if self._connecting is None or self._connecting[0] is not loop:
            self._connecting = loop, asyncio.Lock()
        async with self._connecting[1]:
            if self._connected is None:
                with told():
                    connecting = _native.SecoClient.connect(
                        self._config, self._store, None, self._token, self._log
                    )
                    self._connected = await connecting
                # Needed no more.
                self._token = None

    async def _infer(self, input: ArrayLike, progress: Optional[Callable[[Progress], object]]) -> Prediction:
        with told():
            native = self._native
            listener = None if progress is None else _Listener(progress)
            return _prediction(native, await native.infer_array(_input.npy(input), listener))

    async def _infer_many(self, inputs: Union[ArrayLike, Iterable[ArrayLike]]) -> List[Prediction]:
        with told():
            native = self._native
            arrays: Iterable[Any] = [inputs] if isinstance(inputs, np.ndarray) else inputs  # type: ignore[assignment]
            answered = await native.infer_arrays([_input.npy(array) for array in arrays])
            return [_prediction(native, one) for one in answered]

    async def _probe(self, up: int, down: int) -> None:
        with told():
            await self._native.probe(up, down)

    async def _plain_request(self) -> None:
        model = self._native.model()
        await self._probe(model.input_len, model.answer_len)

    async def _close(self) -> None:
        if self._connected is not None:
            with told():
                await self._connected.shutdown()


def _prediction(native: Any, answered: Any) -> Prediction:
    return _results.prediction(answered, native.answers(answered))


async def fetch_update(deployment: _input.Deployment, connect_timeout: float, transport: Optional[str]) -> Optional[str]:
    """For both clients."""
    config = _input.settings(deployment, connect_timeout, transport=transport)
    with told():
        update: Optional[str] = await _native.fetch_deployment_update(config)
        return update
