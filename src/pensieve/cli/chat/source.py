"""Who answers a chat now, and how another model takes its place in the middle of a conversation.

Knows no conversation and no terminal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing

import msgspec

from pensieve.cli.backend import Place, served_models
from pensieve.errors import PensieveError
from pensieve.generation import GenerationRequest
from pensieve.inference.backend import Backend
from pensieve.inference.server_client import fetch
from pensieve.messages import Json, say

Open = Callable[[Place], AbstractAsyncContextManager[Backend]]
Choose = Callable[[str], Place]
"""Where the model of that name or path answers; blocks, and raises `ModelNotFound`."""


class Source:
    """The backend at a place, and the place."""

    def __init__(self, place: Place, open_at: Open, choose: Choose) -> None:
        self.place = place
        self._open_at = open_at
        self._choose = choose
        self._stack = AsyncExitStack()
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """Who answers; opened before."""
        assert self._backend is not None, "a source is opened first"
        return self._backend

    async def open(self) -> Backend:
        """Begin with the place; nothing is loaded yet."""
        self._backend = await self._stack.enter_async_context(self._open_at(self.place))
        return self._backend

    async def load(self) -> None:
        """Have the model loaded, so that the first question does not wait. Raises what loading raises."""
        await _load(self.backend, self.place.model)

    async def change(self, name: str) -> AsyncGenerator[str, None]:
        """Let the model of that name or path answer from now on; yields what happens, for people.

        It is loaded before the old one goes, where memory holds both. Where it cannot be loaded, the old one stays or
        comes back, and the error is raised.
        """
        place = await asyncio.to_thread(self._choose, name)
        if place == self.place:
            yield f"{place.model} answers already"
            return
        is_here = self.place.spec is not None and place.spec is not None
        changes = self._swap(name) if is_here else self._move(place)
        async with aclosing(changes):
            async for change in changes:
                yield change
        self.place = place  # at the latest: a move is one before the old backend has gone
        yield f"{place.model} answers now, {place.description}"

    def health(self) -> dict[str, Json] | None:
        """What the server that answers says of itself; None where the worker is our own, or it says nothing."""
        server = self.place.server
        if server is None:
            return None
        try:
            return msgspec.json.decode(fetch(server.url, "/health"), type=dict[str, Json])
        except (PensieveError, msgspec.DecodeError, msgspec.ValidationError):
            return None

    def served(self) -> Sequence[str]:
        """The models of the server that answers, if one does."""
        server = self.place.server
        return () if server is None else served_models(server.url, server.api_key)

    async def aclose(self) -> None:
        """Give everything back; safe to call twice."""
        await self._stack.aclose()

    async def _swap(self, name: str) -> AsyncGenerator[str, None]:
        from pensieve.inference.residency import describe  # noqa: PLC0415 - slow to import, and seldom needed
        from pensieve.inference.router import Router  # noqa: PLC0415 - as above

        router = self.backend
        assert isinstance(router, Router), "a model of our own stands behind a router"
        async with aclosing(router.swap(name)) as changes:
            async for change in changes:
                yield describe(change)

    async def _move(self, place: Place) -> AsyncGenerator[str, None]:
        """From a server to a worker of our own, or the other way: both are there until the new one is ready."""
        yield f"loading {place.model}, {place.description}"
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(self._open_at(place))
            await _load(backend, place.model)
            old, self._stack, self._backend, self.place = self._stack, stack.pop_all(), backend, place
        await old.aclose()


async def _load(backend: Backend, model: str) -> None:
    # Any request that needs the model loads it.
    hello = GenerationRequest(id=f"req_{uuid.uuid4().hex}", model=model, messages=(say("user", "Hello"),))
    await backend.count_tokens(hello)
