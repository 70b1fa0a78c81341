"""When a sequence came to each stage: the same measures on every engine."""

from __future__ import annotations

import time

from pensieve.generation import Timings


class Clock:
    """Starts when it is made, with the request's arrival in the engine. A stage counts the first time it comes."""

    def __init__(self) -> None:
        self._arrived = time.monotonic()
        self._began: float | None = None
        self._spoke: float | None = None

    @property
    def has_begun(self) -> bool:
        """It has left the queue."""
        return self._began is not None

    @property
    def has_spoken(self) -> bool:
        """It has made a token."""
        return self._spoke is not None

    def begin(self) -> None:
        """It left the queue."""
        if self._began is None:
            self._began = time.monotonic()

    def speak(self) -> None:
        """It made a token."""
        if self._spoke is None:
            self._spoke = time.monotonic()

    def timings(self, *, peak_memory_bytes: int = 0) -> Timings:
        """The measures of an answer that ends now."""
        now = time.monotonic()
        began = self._began if self._began is not None else now
        spoke = self._spoke if self._spoke is not None else now
        return Timings(
            queue_seconds=began - self._arrived,
            prefill_seconds=spoke - began,
            decode_seconds=now - spoke,
            time_to_first_token_seconds=spoke - self._arrived,
            peak_memory_bytes=peak_memory_bytes,
        )
