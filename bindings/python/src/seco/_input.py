"""Arrays on their way to the library, which checks them."""

from __future__ import annotations

import io
import math
import os
from typing import Any, Union

import numpy as np
from numpy.typing import ArrayLike

from . import _native
from ._errors import InvalidConfiguration

Deployment = Union[str, "os.PathLike[str]"]


def npy(array: Union[ArrayLike, bytes, bytearray]) -> bytes:
    """`array` in NumPy's format. `bytes` are one value each; values of more bits come as an array of uint16."""
    if isinstance(array, (bytes, bytearray)):
        array = np.frombuffer(array, np.uint8)
    file = io.BytesIO()
    try:
        numbers = np.ascontiguousarray(array)
        if numbers.dtype == np.float16:
            numbers = numbers.astype(np.float32)
        np.save(file, numbers, allow_pickle=False)
    except ValueError as error:
        raise InvalidConfiguration(f"the input is no array of numbers: {error}") from None
    return file.getvalue()


def text(deployment: Deployment) -> str:
    """The deployment file's text. What has lines is one."""
    if isinstance(deployment, str) and "\n" in deployment:
        return deployment
    try:
        with open(deployment, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(f"the deployment file cannot be read: {error}") from error


def token(text: Union[str, None]) -> Union[str, None]:
    """A token that the library can be given, which checks it. Not shown, whatever it is: no error has it."""
    if text is not None and not (isinstance(text, str) and text.isascii()):
        raise InvalidConfiguration("the token is not seco_ and 48 hexadecimal digits")
    return text


def settings(
    deployment: Deployment,
    connect_timeout: float,
    request_timeout: float = 60.0,
    transport: Union[str, None] = None,
    session_max_age_days: int = 30,
    keep_sent: bool = False,
    model: Union[str, None] = None,
) -> Any:
    """Settings as the library wants them, which checks what they say."""

    def milliseconds(name: str, seconds: float) -> int:
        if not (math.isfinite(seconds) and 0 <= seconds < 4e6):
            raise InvalidConfiguration(f"{name} is {seconds!r}: give seconds, at most an hour")
        return math.ceil(seconds * 1000)

    if transport not in (None, "quic", "tcp"):
        raise InvalidConfiguration(f"transport is {transport!r}: give 'quic', 'tcp' or nothing, for the better one")
    if model is not None and not isinstance(model, str):
        raise InvalidConfiguration(f"model is {model!r}: give the name that the deployment file has")
    if not 0 <= session_max_age_days < 1 << 32:
        raise InvalidConfiguration(f"session_max_age_days is {session_max_age_days!r}: give days, at least 1")
    return _native.ClientConfig(
        deployment=text(deployment),
        connect_timeout_ms=milliseconds("connect_timeout", connect_timeout),
        request_timeout_ms=milliseconds("request_timeout", request_timeout),
        transport=None if transport is None else _native.Transport[transport.upper()],
        session_max_age_days=session_max_age_days,
        keep_sent=keep_sent,
        model=model,
    )
