"""Which backend answers: the model a request names, if it is on this machine, else the current one.

Any other name a client sends is answered by the current model, so that agents with built-in names just work.
Knows no process, socket or engine: it is given a function that starts a backend for a spec.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from pensieve.config.settings import Settings
from pensieve.devices.processes import read_spare_memory
from pensieve.errors import BackendFailure, InvalidRequest, ModelNotFound, PensieveError
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.inference.backend import Backend, Embeddings, Embeds, Limits
from pensieve.inference.context import context_tokens
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.residency import Change, describe
from pensieve.inference.resident import Resident
from pensieve.inference.residents import Residents, Tell
from pensieve.inference.supervision import Supervised
from pensieve.models.spec import ModelSpec

log = logging.getLogger(__name__)

MADE_UP_PREFIX = "claude-"
"""Agents ask for these by themselves: no search for a model of that name."""
FRESH_SECONDS = 2.0
"""What is on disk is looked up again for a name nobody knew then, so often at most."""


class Status(Protocol):
    """How a backend that loads and restarts is now."""

    @property
    def state(self) -> str:
        """One of the words of `supervision.State`."""
        ...


@runtime_checkable
class HasStatus(Protocol):
    """A backend that can say how it is without being asked to work."""

    @property
    def status(self) -> Status:
        """How it is now."""
        ...


class Library(Protocol):
    """The models on this machine; `Registry` is one. It reads files, so that only threads ask for `all` and `find`."""

    def all(self) -> tuple[ModelSpec, ...]:
        """Every model that is whole."""
        ...

    def find(self, name_or_path: str) -> ModelSpec:
        """The model of that name, alias or path; raises `ModelNotFound` or `LoadFailed`."""
        ...

    def stored_name(self, name: str) -> str:
        """The name a model is kept under; reads nothing."""
        ...


class NoLibrary:
    """No models but the one that a router begins with."""

    def all(self) -> tuple[ModelSpec, ...]:
        """None."""
        return ()

    def find(self, name_or_path: str) -> ModelSpec:
        """Never."""
        raise ModelNotFound(name_or_path[:200])

    def stored_name(self, name: str) -> str:
        """The name itself."""
        return name


class Router:
    """A `Backend` over the models of a library; each is loaded on first use."""

    def __init__(
        self,
        spec: ModelSpec,
        start: Callable[[ModelSpec], Backend],
        library: Library | None = None,
        settings: Settings | None = None,
        guard: MemoryGuard | None = None,
    ) -> None:
        """`spec` answers until another is asked for. Reads the library once: make routers outside of event loops."""
        self._first = spec
        self._library = library or NoLibrary()
        self._settings = settings or Settings()
        self._residents = Residents(
            spec, start, self._settings, guard or MemoryGuard(self._settings.memory, read_spare_memory)
        )
        self._known = self._read_library()
        self._read_at_seconds = time.monotonic()
        self._changing: asyncio.Task[None] | None = None
        self._target = ""
        """The model that the change under way brings."""

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """The models that requests may name, the current one first."""
        current = self._residents.current
        if self._settings.model.swap == "off":
            return (current,)
        return (current, *(spec for name, spec in sorted(self._known.items()) if name != current.name))

    @property
    def state(self) -> str:
        """How the current model is, in one word of `Status`; asking starts nothing."""
        resident = self._residents.get(self._residents.current.name) or self._residents.incoming
        if resident is None:
            return "unloaded"
        return resident.backend.status.state if isinstance(resident.backend, HasStatus) else "ready"

    @property
    def supervised(self) -> Supervised | None:
        """The workers as one, where there are or were any that are looked after; asking starts nothing."""
        return self._residents.supervised

    @property
    def num_running(self) -> int:
        """Requests under way, over all models."""
        return self._residents.num_running

    @property
    def num_places(self) -> int:
        """Requests that the current model's engine answers at once."""
        is_mlx = self._residents.current.format == "mlx"
        return self._settings.mlx.parallel if is_mlx else self._settings.llamacpp.parallel

    def is_resident(self, name: str) -> bool:
        """Whether that model has its place in memory now."""
        return name in self._residents

    def resolve(self, name: str) -> ModelSpec:
        """The model that answers requests for `name`, of those known; `choose` looks on disk as well."""
        if self._settings.model.swap == "off":
            return self._residents.current
        return self._known.get(self._library.stored_name(name), self._residents.current)

    async def choose(self, name: str) -> ModelSpec:
        """The model that answers requests for `name`; one that came to this machine a moment ago is found."""
        is_new = self._library.stored_name(name) not in self._known and not name.startswith(MADE_UP_PREFIX)
        if is_new and time.monotonic() - self._read_at_seconds > FRESH_SECONDS:
            await self.refresh()
        return self.resolve(name)

    async def refresh(self) -> None:
        """Look which models are on this machine now."""
        self._read_at_seconds = time.monotonic()
        self._known = await asyncio.to_thread(self._read_library)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`."""
        resident = await self._enter(request.model)
        try:
            async with aclosing(resident.backend.generate(request)) as events:
                async for event in events:
                    yield event
        finally:
            self._residents.leave(resident)

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`."""
        resident = await self._enter(request.model)
        try:
            return await resident.backend.count_tokens(request)
        finally:
            self._residents.leave(resident)

    async def embed(self, model: str, texts: tuple[str, ...]) -> Embeddings:
        """See `Embeds`, for the model that answers for `model`. Raises `InvalidRequest` where it cannot."""
        resident = await self._enter(model)
        try:
            backend: object = resident.backend
            if not isinstance(backend, Embeds):
                problem = f"{self.resolve(model).name} makes no embeddings: take a model in a GGUF file"
                raise InvalidRequest(problem, path="model")
            return await backend.embed(texts)
        finally:
            self._residents.leave(resident)

    async def limits(self, model: str = "") -> Limits:
        """What the model that answers for `model` can take; planned, where it is not in memory."""
        self._check_open()
        spec = self.resolve(model)
        if not self._residents and self._changing is None and spec == self._residents.current:
            self._residents.place(spec)
        resident = self._residents.get(spec.name)
        if resident is not None:
            return await resident.backend.limits()
        context = context_tokens(spec, self._settings.model)
        return Limits(spec.name, context, context, spec.capabilities, is_planned=True)

    async def swap(self, name: str) -> AsyncGenerator[Change, None]:
        """Make the model of that name or path the current one; yields what happens, to be told to a person.

        It is loaded before others go, where memory holds both. Answers of a model that must go get
        `model.drain_seconds`. Where the new one cannot be loaded, the old one stays, or comes back, and the error is
        raised. Whoever stops listening does not stop the swap.
        """
        spec = await asyncio.to_thread(self._find, name)
        while self._changing is not None:
            await asyncio.wait([self._changing])
        self._check_open()
        self._known[spec.name] = spec
        changes: asyncio.Queue[Change | None] = asyncio.Queue()
        task = self._begin(spec, changes.put_nowait, is_forced=True)
        task.add_done_callback(lambda _: changes.put_nowait(None))
        while (change := await changes.get()) is not None:
            yield change
        self._check_open()
        task.result()

    async def aclose(self) -> None:
        """End all backends; whoever asks afterwards is told so."""
        self._residents.is_closed = True
        if self._changing is not None:
            self._changing.cancel()
            await asyncio.gather(self._changing, return_exceptions=True)
        await self._residents.aclose()

    async def _enter(self, name: str) -> Resident:
        """The model for that name, with one request more."""
        while True:
            self._check_open()
            spec = self.resolve(name)
            resident = self._residents.get(spec.name)
            if resident is not None and not resident.is_leaving:
                resident.enter()
                return resident
            if self._residents or self._changing is not None:
                await self._changed(spec, name)
            else:
                await self._residents.vacated()
                self._check_open()
                if not self._residents and self._changing is None:
                    self._residents.place(spec)

    async def _changed(self, spec: ModelSpec, name: str) -> None:
        """Wait for the change that is under way, or make the one to `spec`; raises if that failed."""
        task = self._changing or self._begin(spec, _tell_nobody, is_forced=False)
        is_ours = self._target == spec.name
        await asyncio.wait([task])
        self._check_open()
        if is_ours and self.resolve(name) == spec:
            task.result()

    def _begin(self, spec: ModelSpec, tell: Tell, *, is_forced: bool) -> asyncio.Task[None]:
        def tell_all(change: Change) -> None:
            log.info("%s", describe(change))
            tell(change)

        task = asyncio.create_task(self._residents.change(spec, tell_all, is_forced=is_forced))
        self._changing, self._target = task, spec.name
        task.add_done_callback(self._on_changed)
        return task

    def _on_changed(self, task: asyncio.Task[None]) -> None:
        self._changing, self._target = None, ""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("the model was not changed: %s", error if isinstance(error, PensieveError) else repr(error))

    def _find(self, name: str) -> ModelSpec:
        return self._first if name == self._first.name else self._library.find(name)

    def _read_library(self) -> dict[str, ModelSpec]:
        """All models by name; the one the router began with wins over a namesake."""
        first = self._library.stored_name(self._first.name)
        return {**{spec.name: spec for spec in self._library.all()}, first: self._first}

    def _check_open(self) -> None:
        if self._residents.is_closed:
            raise BackendFailure("the server is shutting down")


def _tell_nobody(change: Change) -> None:
    """Nobody listens."""
    del change
