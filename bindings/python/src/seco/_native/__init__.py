"""The library, by the module that `bindings/build python` generates from it and lays beside this file."""

from .seco import (  # type: ignore[import-not-found]
    ClientConfig,
    ClientLog,
    ProgressListener,
    SecoClient,
    SecoError,
    SessionStore,
    StoreError,
    Transport,
    fetch_deployment_update,
    rest,
)

__all__ = [
    "ClientConfig",
    "ClientLog",
    "ProgressListener",
    "SecoClient",
    "SecoError",
    "SessionStore",
    "StoreError",
    "Transport",
    "fetch_deployment_update",
    "rest",
]
