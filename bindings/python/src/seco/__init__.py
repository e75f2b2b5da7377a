"""Private neural-network inference in which the device does next to nothing.

>>> import numpy, seco
>>> with seco.Client("deployment.toml") as client:      # doctest: +SKIP
...     print(client.infer(numpy.zeros(client.input_shape, numpy.uint8)).label)

:class:`Client` blocks, in scripts and notebooks; :class:`seco.aio.Client` is the same for ``asyncio``. Every failure is a
:class:`SecoError` with a stable ``code``. Any number of threads may use a client at a time. Applications that take an
:class:`AnyClient` are tested with :mod:`seco.testing`.
"""

from . import aio
from ._client import Client, fetch_deployment_update
from ._errors import (
    Busy,
    Closed,
    IncompatibleServer,
    InvalidConfiguration,
    Network,
    Refused,
    SecoError,
    Storage,
    Timeout,
    TokenRefused,
    UntrustedServer,
    WrongInputSize,
)
from ._interface import AnyAsyncClient, AnyClient
from ._results import Cost, Output, Prediction, Progress
from ._store import FileSessionStore, SessionStore

__version__ = "0.1.0"

__all__ = [
    "AnyAsyncClient",
    "AnyClient",
    "Busy",
    "Client",
    "Closed",
    "Cost",
    "FileSessionStore",
    "IncompatibleServer",
    "InvalidConfiguration",
    "Network",
    "Output",
    "Prediction",
    "Progress",
    "Refused",
    "SecoError",
    "SessionStore",
    "Storage",
    "Timeout",
    "TokenRefused",
    "UntrustedServer",
    "WrongInputSize",
    "aio",
    "fetch_deployment_update",
]
