"""Errors, by what an application can do about them. The numbers are the other packages' too, and stable."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Type


class SecoError(Exception):
    """What went wrong. After each of them another request may be tried."""

    #: Stable number of the kind, 1 to 11: for logs and reports.
    code: ClassVar[int] = 0

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        #: One line that says what to do.
        self.reason = reason


class InvalidConfiguration(SecoError, ValueError):
    """1: the deployment file, a setting or a value of the input cannot be used."""

    code = 1


class WrongInputSize(SecoError, ValueError):
    """2: the input has not the axes, or not as many values, as the model takes."""

    code = 2
    #: Values that the model takes, or bytes where bytes were given.
    expected: int = 0
    #: Values or bytes given.
    got: int = 0


class Network(SecoError, ConnectionError):
    """3: the servers cannot be reached, or the connection was lost and no time is left for another try. Try again later, or with a network."""

    code = 3


class Timeout(SecoError, TimeoutError):
    """4: not finished within the time that the settings allow."""

    code = 4


class Busy(SecoError):
    """5: the servers have no capacity now."""

    code = 5
    #: When to try again, in seconds.
    retry_after: float = 0.0


class Refused(SecoError):
    """6: the servers refused the request, which trying again seldom changes."""

    code = 6


class UntrustedServer(SecoError):
    """7: the gateway is not the one that the deployment file names. Get the current file where this one came from:
    :func:`seco.fetch_deployment_update` asks the same gateway, and trusts no other either."""

    code = 7


class IncompatibleServer(SecoError):
    """8: the gateway does not speak this version of the protocol."""

    code = 8


class Storage(SecoError, OSError):
    """9: the session store failed, or the system has no randomness. Nothing was sent."""

    code = 9


class Closed(SecoError):
    """10: the client was closed, or is not connected."""

    code = 10


class TokenRefused(SecoError):
    """11: the gateway serves only who shows a token, or does not take this one. Its operator gives them away."""

    code = 11
    #: ``"missing"``, ``"invalid"``, ``"expired"`` or ``"exhausted"``.
    problem: str = ""
    #: Where it is exhausted for now, seconds until it is good again; otherwise 0.
    retry_after: float = 0.0


_KINDS: Dict[str, Type[SecoError]] = {
    kind.__name__: kind
    for kind in (
        InvalidConfiguration,
        WrongInputSize,
        Network,
        Timeout,
        Busy,
        Refused,
        UntrustedServer,
        IncompatibleServer,
        Storage,
        Closed,
        TokenRefused,
    )
}


def translated(error: Any) -> SecoError:
    """The package's error for the library's."""
    kind = type(error).__name__
    if kind == "Busy":
        seconds = error.retry_after_ms / 1000
        busy = Busy(f"the servers are busy; try again in {seconds:g} s")
        busy.retry_after = seconds
        return busy
    told = _KINDS[kind](error.reason)
    if isinstance(told, WrongInputSize):
        told.expected, told.got = error.expected, error.got
    elif isinstance(told, TokenRefused):
        told.problem, told.retry_after = error.problem.name.lower(), float(error.retry_after_s)
    return told
