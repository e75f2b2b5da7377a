"""Where a client cannot be called, and would wait for ever."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from typing import Iterator

from . import _native
from ._errors import Closed, InvalidConfiguration

_started = False
_forked = False
_ending = False
_here = threading.local()


def _after_fork() -> None:
    global _forked
    _forked = _started


os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    """A thread that wants to run Python while the interpreter ends is unwound, which the library's must not be: the process
    would abort. Registered when the package is imported, so it comes after what applications register later."""
    global _ending
    if _started and not _forked:
        _ending = True
        _native.rest()


atexit.register(_at_exit)


def ending() -> bool:
    """Whether the interpreter ends, and nothing can be asked of the library any more."""
    return _ending


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
    if _ending:
        raise Closed("the process is ending")
    if getattr(_here, "library", False):
        raise InvalidConfiguration("a session store, a log or a progress callback must not call a client")
    _started = True


@contextlib.contextmanager
def library_thread() -> Iterator[None]:
    """While the application's code runs on a thread that its requests need."""
    before = getattr(_here, "library", False)
    _here.library = True
    try:
        yield
    finally:
        _here.library = before
