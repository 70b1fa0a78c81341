"""Who answers a chat now, and how another model takes its place in the middle of a conversation.

Knows no conversation and no terminal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing

import msgspec

from pensieve.cli.backend import Place, choose, open_backend
from pensieve.config.settings import Folders, Settings
from pensieve.errors import LoadFailed, MemoryShort, PensieveError
from pensieve.generation import GenerationRequest
from pensieve.inference.backend import Backend
from pensieve.inference.server_client import fetch
from pensieve.messages import Json, say

Open = Callable[[Place, Settings], AbstractAsyncContextManager[Backend]]


class Source:
    """The backend at a place, and the place."""

    def __init__(self, place: Place, settings: Settings, open_at: Open = open_backend) -> None:
        self._open_at = open_at
        self.place = place
        self.settings = settings
        self._stack = AsyncExitStack()
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """Who answers; opened before."""
        assert self._backend is not None, "a source is opened first"
        return self._backend

    async def open(self) -> Backend:
        """Begin with the place; nothing is loaded yet."""
        self._backend = await self._stack.enter_async_context(self._open_at(self.place, self.settings))
        return self._backend

    async def load(self) -> None:
        """Have the model loaded, so that the first question does not wait. Raises what loading raises."""
        await _load(self.backend, self.place.model)

    async def change(self, name: str, folders: Folders) -> AsyncGenerator[str, None]:
        """Let the model of that name or path answer from now on; see `swap`. Raises `ModelNotFound`."""
        settings = msgspec.structs.replace(self.settings, model=msgspec.structs.replace(self.settings.model, name=name))
        place = await asyncio.to_thread(choose, settings, folders)
        if place == self.place:
            yield f"{place.model} answers already"
            return
        async with aclosing(self.swap(place)) as changes:
            async for change in changes:
                yield change

    async def swap(self, place: Place) -> AsyncGenerator[str, None]:
        """Let the model at that place answer from now on; yields what happens, for people.

        It is loaded beside the old one where memory holds both, else after it; where it cannot be loaded, the old one
        stays or comes back, and the error is raised.
        """
        yield f"loading {place.model} ({place.description})"
        try:
            fresh = await self._loaded(place)
        except (MemoryShort, LoadFailed) as error:
            if self.place.spec is None or place.spec is None or isinstance(error, LoadFailed):
                raise
            yield f"{self.place.model} goes first: memory does not hold both"
            await self._stack.aclose()
            fresh = await self._loaded_or_back(place)
        await self._stack.aclose()
        self._stack, self._backend, self.place = fresh[0], fresh[1], place
        yield f"{place.model} answers now"

    def health(self) -> dict[str, Json] | None:
        """What the server that answers says of itself; None where the worker is our own, or it says nothing."""
        server = self.place.server
        if server is None:
            return None
        try:
            return msgspec.json.decode(fetch(server.url, "/health"), type=dict[str, Json])
        except (PensieveError, msgspec.DecodeError, msgspec.ValidationError):
            return None

    async def aclose(self) -> None:
        """Give everything back; safe to call twice."""
        await self._stack.aclose()

    async def _loaded(self, place: Place) -> tuple[AsyncExitStack, Backend]:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(self._open_at(place, self.settings))
            await _load(backend, place.model)
            return stack.pop_all(), backend

    async def _loaded_or_back(self, place: Place) -> tuple[AsyncExitStack, Backend]:
        try:
            return await self._loaded(place)
        except BaseException:
            self._stack = AsyncExitStack()
            await self.open()
            raise


async def _load(backend: Backend, model: str) -> None:
    # Any request that needs the model loads it.
    hello = GenerationRequest(id=f"req_{uuid.uuid4().hex}", model=model, messages=(say("user", "Hello"),))
    await backend.count_tokens(hello)
