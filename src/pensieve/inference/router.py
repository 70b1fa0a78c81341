"""Which backend answers: model name -> resident backend. One model is resident at a time for now.

Any name a client sends is answered by the resident model, so that agents with built-in names just work.
Knows no process, socket or engine: it is given a function that starts a backend for a spec.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from pensieve.errors import BackendFailure
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.inference.backend import Backend, Limits
from pensieve.inference.supervision import Supervised
from pensieve.models.spec import ModelSpec


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


class Router:
    """A `Backend` over the resident model; the backend is made on first use."""

    def __init__(self, spec: ModelSpec, start: Callable[[ModelSpec], Backend]) -> None:
        self._spec = spec
        self._start = start
        self._resident: Backend | None = None
        self._is_closed = False

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """The models this server answers with, the resident one first."""
        return (self._spec,)

    @property
    def state(self) -> str:
        """How the resident model is, in one word of `Status`; asking starts nothing."""
        if self._resident is None:
            return "unloaded"
        return self._resident.status.state if isinstance(self._resident, HasStatus) else "ready"

    @property
    def supervised(self) -> Supervised | None:
        """The resident backend, where it has a worker that is looked after; asking starts nothing."""
        return self._resident if isinstance(self._resident, Supervised) else None

    def resolve(self, name: str) -> ModelSpec:
        """The model that answers requests for `name`."""
        del name
        return self._spec

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`."""
        async with aclosing(self._backend(request.model).generate(request)) as events:
            async for event in events:
                yield event

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`."""
        return await self._backend(request.model).count_tokens(request)

    async def limits(self, model: str = "") -> Limits:
        """What the model that answers for `model` can take."""
        return await self._backend(model).limits()

    async def aclose(self) -> None:
        """End the resident backend; whoever asks afterwards is told so."""
        self._is_closed = True
        resident, self._resident = self._resident, None
        if resident is not None:
            await resident.aclose()

    def _backend(self, model: str) -> Backend:
        spec = self.resolve(model)
        if self._is_closed:
            raise BackendFailure("the server is shutting down")
        if self._resident is None:
            self._resident = self._start(spec)
        return self._resident
