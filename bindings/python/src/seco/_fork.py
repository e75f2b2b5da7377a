"""Where a client cannot be called, and would wait for ever."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Iterator

from ._errors import InvalidConfiguration

_started = False
_forked = False
_here = threading.local()


def _after_fork() -> None:
    global _forked
    _forked = _started


os.register_at_fork(after_in_child=_after_fork)


def check() -> None:
    """Before every use of the library: its thread is not in a process that was forked after it started, and a lock that
    the thread held is held there for ever."""
    if _forked:
        raise InvalidConfiguration(
            "the process was forked after its parent had a client: start processes with multiprocessing's 'spawn'"
        )


def start() -> None:
    """Before every call that waits for the library's thread."""
    global _started
    check()
    if getattr(_here, "library", False):
        raise InvalidConfiguration("a session store or a progress callback must not call a client")
    _started = True


@contextlib.contextmanager
def library_thread() -> Iterator[None]:
    """While the application's code runs on a thread that its requests need."""
    _here.library = True
    try:
        yield
    finally:
        _here.library = False
