"""Reads what the status line tells: the conversation, the backend's limits, this machine's memory. Draws nothing."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from urllib.parse import urlsplit

from pensieve.cli.backend import Place
from pensieve.cli.chat.session import ChatSession
from pensieve.cli.chat.source import Source
from pensieve.cli.chat.status import Status
from pensieve.cli.speed import Speed, Stopwatch
from pensieve.conversation.conversation import Turn
from pensieve.devices.levels import level_of
from pensieve.devices.memory import MemoryReading, read_memory
from pensieve.errors import PensieveError
from pensieve.generation import Finished, GenerationEvent, Usage
from pensieve.inference.backend import Limits

READING_SECONDS = 1.0
"""Memory is looked at so often at most."""


class Meter:
    """What is known of one chat now."""

    def __init__(self, source: Source, session: ChatSession, read: Callable[[], MemoryReading] = read_memory) -> None:
        self._source = source
        self._session = session
        self._read = read
        self._reading: MemoryReading | None = None
        self._read_at = 0.0
        self._limits: Limits | None = None
        self._limited_place: Place | None = None
        self._watch = Stopwatch()
        self._usage: Usage | None = None
        self._loading: Future[None] | None = None
        self._loading_since = 0.0

    def load(self, loading: Future[None]) -> None:
        """The model is being loaded; until that ends, it is what is going on."""
        self._loading, self._loading_since = loading, time.monotonic()

    def begin(self) -> None:
        """A question was sent."""
        self._watch, self._usage = Stopwatch(), None

    def add(self, event: GenerationEvent) -> None:
        """Take an event of an answer in."""
        self._watch.add(event)
        if isinstance(event, Finished):
            self._usage = event.usage

    async def look(self) -> None:
        """Ask who answers for its limits, unless it did not change and they are known for certain."""
        place = self._source.place
        if self._limits is not None and self._limited_place == place and not self._limits.is_planned:
            return
        try:
            self._limits, self._limited_place = await self._source.backend.limits(), place
        except PensieveError:
            self._limits = None

    @property
    def speed(self) -> Speed:
        """How quick the last answer is or was."""
        return self._watch.speed

    @property
    def loading(self) -> str:
        """What is being loaded and for how long, in words; empty: nothing."""
        if self._loading is None or self._loading.done():
            return ""
        return f"loading {self._source.place.model}, {time.monotonic() - self._loading_since:.0f} s"

    @property
    def status(self) -> Status:
        """All of it."""
        place, reading = self._source.place, self._memory()
        usage = last_usage(self._session.turns)
        # In another conversation, or after /undo, the figures of the last answer say nothing of what is here.
        speed = self._watch.speed if usage is not None and usage == self._usage else None
        return Status(
            model=place.model,
            place=place.description,
            is_private=self._session.archive.is_private,
            phase=self.loading,
            problem=self._problem(),
            context_tokens=usage.prompt_tokens + usage.completion_tokens if usage is not None else None,
            context_limit_tokens=self._limits.context_tokens if self._limits is not None else None,
            available_bytes=reading.available_bytes if reading is not None else None,
            level=level_of(reading) if reading is not None else "Unknown",
            usage=usage,
            tokens_per_second=speed.decode_tokens_per_second if speed is not None else None,
            first_token_seconds=speed.time_to_first_token_seconds if speed is not None else None,
        )

    def _problem(self) -> str:
        if self._loading is None or not self._loading.done() or self._loading.cancelled():
            return ""
        error = self._loading.exception()
        return f"not loaded: {error}"[:80] if error is not None else ""

    def _memory(self) -> MemoryReading | None:
        if not is_here(self._source.place):
            return None
        now = time.monotonic()
        if self._reading is None or now - self._read_at >= READING_SECONDS:
            self._reading, self._read_at = self._read(), now
        return self._reading


def last_usage(turns: Sequence[Turn]) -> Usage | None:
    """The tokens of the newest answer that told them: one that broke off did not; None after a summary."""
    for turn in reversed(turns):
        if turn.is_summary:
            return None
        if turn.usage.prompt_tokens:
            return turn.usage
    return None


def is_here(place: Place) -> bool:
    """Whether the model answers on this machine, whose memory is then of interest."""
    if place.server is None:
        return True
    host = urlsplit(place.server.url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
