"""From engine threads to the event loop, in few wakes: an inbox a sequence, one bell for all. Knows no engine."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")

PACE_SECONDS = 0.03
"""The loop is woken for running text at most this often, whatever the number of streams: every wake costs the engine
a piece of a core, in the worker, in the server and in the client."""


class Bell:
    """Wakes the loop for the items of all sequences. Nothing urgent waits, and nothing waits longer than the pace."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rung: deque[asyncio.Event] = deque()
        self._is_pacing = False

    def ring(self, ready: asyncio.Event, *, is_urgent: bool) -> None:
        """Have `ready` set, at once or with the next delivery. Called on engine threads."""
        self._rung.append(ready)
        if is_urgent or not self._is_pacing:
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        has_rung = bool(self._rung)
        while self._rung:
            self._rung.popleft().set()
        if has_rung and not self._is_pacing:
            self._is_pacing = True
            self._loop.call_later(PACE_SECONDS, self._next_beat)

    def _next_beat(self) -> None:
        # First open the door, then look: an engine thread that rang in between has either been seen or comes in.
        self._is_pacing = False
        self._deliver()


class Inbox(Generic[Item]):
    """Items from one engine thread to the loop."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._items: deque[Item] = deque()
        self._ready = asyncio.Event()

    def put(self, item: Item, *, is_urgent: bool = True) -> None:
        """Called on the engine thread."""
        self._items.append(item)
        self._bell.ring(self._ready, is_urgent=is_urgent)

    async def get(self) -> Item:
        """The next item. Called on the loop."""
        await self._wait()
        return self._items.popleft()

    async def get_all(self) -> list[Item]:
        """All items that are there, one at least. Called on the loop."""
        await self._wait()
        return [self._items.popleft() for _ in range(len(self._items))]

    async def _wait(self) -> None:
        while not self._items:
            await self._ready.wait()
            self._ready.clear()
