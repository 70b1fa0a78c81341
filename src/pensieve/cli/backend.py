"""Which backend answers a command: the running server that has the model, or a worker of our own.

`choose` decides, `open_backend` acts. Knows no command and no terminal.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from pensieve.config.settings import Folders, Settings
from pensieve.errors import ModelNotFound
from pensieve.inference.backend import Backend
from pensieve.inference.server_client import RunningServer, find_server
from pensieve.models.catalog import entry_named
from pensieve.models.registry import Registry
from pensieve.models.spec import ModelSpec


class Place(msgspec.Struct, frozen=True):
    """Where a model answers: exactly one of `server` and `spec` is set."""

    model: str
    server: RunningServer | None = None
    spec: ModelSpec | None = None

    @property
    def description(self) -> str:
        """The place in words: `server http://127.0.0.1:7777` or `own worker`."""
        return "own worker" if self.server is None else f"server {self.server.url}"


def choose(settings: Settings, folders: Folders) -> Place:
    """Where the model of the settings answers. Raises `ModelNotFound` when it is neither served nor on disk."""
    name = settings.model.name
    server = find_server(folders)
    if server is not None and server.model == name:
        return Place(server.model, server=server)
    spec = _find(name, folders)
    # A path or an alias: the server knows the model by its proper name.
    if server is not None and server.model == spec.name:
        return Place(server.model, server=server)
    return Place(spec.name, spec=spec)


@asynccontextmanager
async def open_backend(place: Place, settings: Settings) -> AsyncIterator[Backend]:
    """The backend at the place, closed at the end. A worker starts with the first request."""
    # The errors that reach the caller say it all; without a handler, logging would say it a second time.
    logging.getLogger("pensieve").addHandler(logging.NullHandler())
    backend = _backend(place, settings)
    try:
        yield backend
    finally:
        await backend.aclose()


def _find(name: str, folders: Folders) -> ModelSpec:
    try:
        return Registry(folders.models).find(name)
    except ModelNotFound as missing:
        entry = entry_named(name)
        if entry is None:
            raise
        raise ModelNotFound(entry.name, is_known=True) from missing


def _backend(place: Place, settings: Settings) -> Backend:
    if place.server is not None:
        from pensieve.inference.upstream import UpstreamBackend  # noqa: PLC0415 - brings an HTTP client, slow to import

        return UpstreamBackend(place.server.url, place.server.api_key, place.server.model)
    from pensieve.inference.worker.host import WorkerBackend  # noqa: PLC0415 - not needed where a server answers

    assert place.spec is not None, "a place has a server or a spec"
    return WorkerBackend(place.spec, settings)
