"""The client for ``asyncio``."""

from __future__ import annotations

from types import TracebackType
from typing import Callable, Iterable, List, Optional, Type, Union

from numpy.typing import ArrayLike

from . import _connection, _input
from ._results import Prediction, Progress


class Client(_connection.Connection):
    """A connection to a gateway, with an open session, for ``asyncio``.

    ``async with seco.aio.Client("deployment.toml") as client`` connects and closes; so do ``await client.connect()`` and
    ``await client.close()``. The arguments are those of :class:`seco.Client`. A task that is cancelled cancels its
    request, and leaves the client usable. Any number of requests may run at a time.
    """

    async def connect(self) -> Client:
        """Connects, and opens a session or goes on with the one in the store. Returns the client itself. Tasks that do so
        at a time wait for one connection.

        Raises any :class:`seco.SecoError` but ``WrongInputSize``.
        """
        await self._connect()
        return self

    async def infer(
        self, input: ArrayLike, progress: Optional[Callable[[Progress], object]] = None
    ) -> Prediction:
        """As :meth:`seco.Client.infer`; `progress` is called in the running loop."""
        return await self._infer(input, progress)

    async def infer_many(self, inputs: Union[ArrayLike, Iterable[ArrayLike]]) -> List[Prediction]:
        """As :meth:`seco.Client.infer_many`."""
        return await self._infer_many(inputs)

    async def probe(self, up: int, down: int) -> None:
        """As :meth:`seco.Client.probe`."""
        await self._probe(up, down)

    async def plain_request(self) -> None:
        """As :meth:`seco.Client.plain_request`."""
        await self._plain_request()

    async def close(self) -> None:
        """Tells the gateway that the client is done; all requests fail with ``Closed``."""
        await self._close()

    async def __aenter__(self) -> Client:
        return await self.connect()

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()


async def fetch_deployment_update(
    deployment: _input.Deployment, *, connect_timeout: float = 10.0, transport: Optional[str] = None
) -> Optional[str]:
    """As :func:`seco.fetch_deployment_update`."""
    return await _connection.fetch_update(deployment, connect_timeout, transport)
