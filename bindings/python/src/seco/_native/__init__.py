"""The library, by the module that `bindings/build python` generates from it and lays beside this file."""

from .seco import (  # type: ignore[import-not-found]
    ClientConfig,
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
    "ProgressListener",
    "SecoClient",
    "SecoError",
    "SessionStore",
    "StoreError",
    "Transport",
    "fetch_deployment_update",
    "rest",
]
