"""Reads what the status line tells: events of answers, the backend's limits, this machine's memory. Draws nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from pensieve.cli.chat.status import Status
from pensieve.cli.speed import Stopwatch
from pensieve.devices.levels import level_of
from pensieve.devices.memory import MemoryReading, read_memory
from pensieve.errors import PensieveError
from pensieve.generation import Finished, GenerationEvent, Started, Usage
from pensieve.inference.backend import Limits

READING_SECONDS = 1.0
"""Memory is looked at so often at most."""


class Meter:
    """What is known of one chat now."""

    def __init__(
        self, model: str, place: str, *, is_here: bool = True, read: Callable[[], MemoryReading] = read_memory
    ) -> None:
        """`is_here`: the model answers on this machine, whose memory is then of interest."""
        self.model = model
        self.place = place
        self.is_here = is_here
        self.limits: Limits | None = None
        self.context_tokens: int | None = None
        self._read = read
        self._reading: MemoryReading | None = None
        self._read_at = 0.0
        self._watch = Stopwatch()
        self._usage: Usage | None = None
        self._loading: Future[None] | None = None
        self._loading_since = 0.0

    def load(self, loading: Future[None]) -> None:
        """The model is being loaded; until that ends, it is what is going on."""
        self._loading, self._loading_since = loading, time.monotonic()

    def begin(self) -> None:
        """A question was sent."""
        self._watch = Stopwatch()

    def add(self, event: GenerationEvent) -> None:
        """Take an event of an answer in."""
        self._watch.add(event)
        match event:
            case Started(prompt_tokens):
                self.context_tokens = prompt_tokens
            case Finished(_, usage):
                self._usage = usage
                self.context_tokens = usage.prompt_tokens + usage.completion_tokens
            case _:
                pass

    @property
    def loading(self) -> str:
        """What is being loaded and for how long, in words; empty: nothing."""
        if self._loading is None or self._loading.done():
            return ""
        return f"loading {self.model}, {time.monotonic() - self._loading_since:.0f} s"

    @property
    def status(self) -> Status:
        """All of it."""
        speed = self._watch.speed if self._usage is not None else None
        reading = self._memory()
        return Status(
            model=self.model,
            place=self.place,
            phase=self.loading,
            problem=self._problem(),
            context_tokens=self.context_tokens,
            context_limit_tokens=self.limits.context_tokens if self.limits is not None else None,
            available_bytes=reading.available_bytes if reading is not None else None,
            level=level_of(reading) if reading is not None else "Unknown",
            usage=self._usage,
            tokens_per_second=speed.decode_tokens_per_second if speed is not None else None,
            first_token_seconds=speed.time_to_first_token_seconds if speed is not None else None,
        )

    def _problem(self) -> str:
        if self._loading is None or not self._loading.done() or self._loading.cancelled():
            return ""
        return "not loaded" if isinstance(self._loading.exception(), PensieveError) else ""

    def _memory(self) -> MemoryReading | None:
        if not self.is_here:
            return None
        now = time.monotonic()
        if self._reading is None or now - self._read_at >= READING_SECONDS:
            self._reading, self._read_at = self._read(), now
        return self._reading
