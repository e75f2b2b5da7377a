"""What a client tells of its work."""

from __future__ import annotations

import logging
from typing import Any, Optional, Union

from . import _native
from ._fork import library_thread

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING}


class _Adapter(_native.ClientLog):
    """A logger as the library wants it."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def log(self, level: Any, name: str, text: str) -> None:
        with library_thread():
            self._logger.log(_LEVELS[level.name], "%s", text, extra={"seco_event": name})


def adapted(log: Union[logging.Logger, str, None]) -> Optional[_Adapter]:
    """As the library wants it; a text is a logger's name."""
    if log is None:
        return None
    logger = logging.getLogger(log) if isinstance(log, str) else log
    if not callable(getattr(logger, "log", None)):
        raise TypeError("log is a logger of logging, or its name")
    return _Adapter(logger)
