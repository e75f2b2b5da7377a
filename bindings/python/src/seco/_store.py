"""Sessions that the application keeps."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from typing import Any, Optional, Protocol, Union

from . import _native
from ._fork import library_thread


class SessionStore(Protocol):
    """The application's place for one session, so that a restart opens no new one.

    The bytes are opaque, less than 512, and **secret**: whoever gets them can read inputs and answers from recorded
    traffic. They may be copied, come back from a backup, and be used by several processes at a time. Both methods are
    called on the library's thread and must not call a client; what they raise becomes ``Storage``.
    """

    def load(self) -> Optional[bytes]:
        """What was saved last; None if nothing was."""

    def save(self, session: bytes) -> None:
        """Replaces what was saved before, as a whole, and returns when that is durable."""


class FileSessionStore:
    """Keeps a session in a file that only this user can read. Any number of threads and processes may use it."""

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self._path = os.path.abspath(os.fspath(path))

    def load(self) -> Optional[bytes]:
        try:
            with open(self._path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def save(self, session: bytes) -> None:
        # A name that no other writer has.
        self._clean_up()
        temporary = f"{self._path}.{uuid.uuid4()}.new"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(session)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        # The new name must outlive a crash too.
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _clean_up(self) -> None:
        """Removes what writers left that crashed more than an hour ago: writing takes far less."""
        folder, name = os.path.split(self._path)
        left = re.compile(re.escape(name) + r"[.][0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[.]new")
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if left.fullmatch(entry.name) and entry.stat().st_mtime < time.time() - 3600:
                        os.unlink(entry.path)


class _Adapter(_native.SessionStore):
    """A store as the library wants it."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def load(self) -> Optional[bytes]:
        with library_thread(), _told():
            return self._store.load()

    def save(self, session: bytes) -> None:
        with library_thread(), _told():
            self._store.save(session)


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except Exception as error:
        raise _native.StoreError.Unavailable(str(error) or repr(error)) from error  # type: ignore[attr-defined]


def adapted(store: Union[SessionStore, str, os.PathLike[str], None]) -> Any:
    """As the library wants it; a path is a file."""
    if store is None:
        return None
    if isinstance(store, (str, os.PathLike)):
        store = FileSessionStore(store)
    return _Adapter(store)
