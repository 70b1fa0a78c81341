"""Which backend answers a command: the running server that has the model, or a worker of our own.

`choose` decides, `open_backend` acts. Knows no command and no terminal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from pensieve.config.settings import Folders, Settings
from pensieve.errors import ModelNotFound, UsageError
from pensieve.inference.backend import Backend
from pensieve.inference.server_client import (
    PATIENCE,
    Patience,
    RunningServer,
    Tell,
    fetch,
    find_server,
    recorded_server,
)
from pensieve.models.registry import Registry
from pensieve.models.spec import ModelSpec


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


class Place(msgspec.Struct, frozen=True):
    """Where a model answers: exactly one of `server` and `spec` is set."""

    model: str
    server: RunningServer | None = None
    spec: ModelSpec | None = None
    state_folder: Path | None = None

    @property
    def description(self) -> str:
        """The place in words: `server http://127.0.0.1:7777` or `own worker`."""
        return "own worker" if self.server is None else f"server {self.server.url}"

    @property
    def is_connected(self) -> bool:
        """Whether a server answers because its address was given."""
        return self.server is not None and self.server.pid == 0


def choose(settings: Settings, folders: Folders, tell: Tell, patience: Patience = PATIENCE) -> Place:
    """Where the model of the settings answers. Raises `ModelNotFound` when it is neither served nor on disk.

    A server that is busy is waited for, and never passed over for a second model beside it: `ServerUnreachable` where
    it stays silent.
    """
    name = settings.model.name
    server = find_server(folders, tell, patience)
    try:
        spec = Registry(folders.models).find(name)
    except (ModelNotFound, UsageError):
        # What is not here cannot be mistaken for another model of that name.
        if server is not None and server.model == name:
            return Place(server.model, server=server)
        raise
    if server is not None and _serves(server, spec):
        return Place(server.model, server=server)
    return Place(spec.name, spec=spec, state_folder=folders.state)


def connect(url: str, wanted: str | None, settings: Settings, folders: Folders) -> Place:
    """Where a server at any address answers, with the model `wanted` or its first one.

    Raises `ServerUnreachable`, `Unauthorized`, or `UsageError` where it has no such model.
    """
    url = url.rstrip("/")
    recorded = recorded_server(folders)
    # Only one that answers as ours do is sent the key; whichever has another address is none of our concern.
    running = find_server(folders) if recorded is not None and recorded.url == url else None
    own_key = running.api_key if running is not None else None
    key = settings.server.api_key or own_key
    names = served_models(url, key)
    if not names or (wanted is not None and wanted not in names):
        there = ", ".join(names) or "none"
        raise UsageError(f"{url} has no model {wanted or ''}: it has {there}; `pensieve serve --model` starts one")
    return Place(wanted or names[0], server=RunningServer(url, wanted or names[0], pid=0, api_key=key))


def served_models(url: str, api_key: str | None) -> list[str]:
    """The names that the server there answers to; raises `ServerUnreachable`, `Unauthorized` or `UsageError`."""
    try:
        return [model.id for model in msgspec.json.decode(fetch(url, "/v1/models", api_key), type=_Models).data]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{url} does not answer as a Pensieve server does: check the address") from error


def check_quantization(wanted: str | None, place: Place) -> None:
    """Refuse a `--quantization` that would change nothing; raises `UsageError` with what to do instead."""
    if wanted in (None, "none"):
        return
    if place.server is not None:
        raise UsageError(
            f"--quantization is for loading a model, and {place.server.url} has loaded {place.model} already: "
            "leave it out, or give it to `pensieve serve`"
        )
    if place.spec is not None and place.spec.format == "gguf":
        raise UsageError(
            f"--quantization is for models of safetensors, and {place.model} is a GGUF file, quantized as it is: "
            "leave it out, or make another form of it with `pensieve models convert`"
        )


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


@asynccontextmanager
async def open_chat_backend(place: Place, settings: Settings, folders: Folders) -> AsyncIterator[Backend]:
    """As `open_backend`; a worker of our own stands behind a router, so that another model can take its place."""
    if place.spec is None:
        async with open_backend(place, settings) as backend:
            yield backend
        return
    from pensieve.inference.router import Router  # noqa: PLC0415 - not needed where a server answers
    from pensieve.inference.worker.host import WorkerBackend  # noqa: PLC0415 - as above

    logging.getLogger("pensieve").addHandler(logging.NullHandler())
    spec, registry = place.spec, Registry(folders.models)
    router = await asyncio.to_thread(
        lambda: Router(spec, lambda spec: WorkerBackend(spec, settings, place.state_folder), registry, settings)
    )
    try:
        yield router
    finally:
        await router.aclose()


def _serves(server: RunningServer, spec: ModelSpec) -> bool:
    """Whether the server has this very model: two files in different folders may have the same name."""
    return server.model == spec.name and server.location == str(Path(spec.location).resolve())


def _backend(place: Place, settings: Settings) -> Backend:
    if place.server is not None:
        from pensieve.inference.upstream import UpstreamBackend  # noqa: PLC0415 - brings an HTTP client, slow to import

        return UpstreamBackend(place.server.url, place.server.api_key, place.server.model)
    from pensieve.inference.worker.host import WorkerBackend  # noqa: PLC0415 - not needed where a server answers

    assert place.spec is not None, "a place has a server or a spec"
    return WorkerBackend(place.spec, settings, place.state_folder)
