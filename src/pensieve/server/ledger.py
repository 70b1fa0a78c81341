"""What the server does and did: one record a request, counts for /health, and the answers that are under way.

Holds no prompt text and no key. Knows no route.
"""

from __future__ import annotations

import logging
import math
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pensieve.errors import PensieveError
from pensieve.generation import Finished, GenerationEvent, Started, Timings, Usage
from pensieve.server.drain import DrainRate
from pensieve.server.metrics import Tally

log = logging.getLogger("pensieve.server")

RECORD = "pensieve.record"
"""Where a request's record lies in its ASGI scope."""
KNOWN_FIELDS_LIMIT = 1_000
"""Names come from clients: more than this many different ones are not worth remembering."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def printable(text: str, limit_characters: int = 200) -> str:
    """Text from outside, fit for one line of a log."""
    return _UNPRINTABLE.sub("?", text[:limit_characters])


class Observer(Protocol):
    """Looks on as an answer comes."""

    def observe(self, event: GenerationEvent) -> None:
        """Take one event in."""


@dataclass
class RequestRecord:
    """One request's facts, gathered as they become known."""

    method: str
    path: str
    id: str = field(default_factory=lambda: f"req_{uuid.uuid4().hex[:24]}")
    started_seconds: float = field(default_factory=time.monotonic)
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Sent with the response, whatever it will be."""
    status: int = 0
    """Of the response; 0 before it begins."""
    model: str = ""
    usage: Usage | None = None
    timings: Timings | None = None
    error_code: str = ""
    is_disconnected: bool = False
    observer: Observer | None = None

    def observe(self, event: GenerationEvent) -> None:
        """Take the token counts out of the events that carry them."""
        if isinstance(event, Started):
            self.usage = Usage(event.prompt_tokens, event.cached_tokens)
        elif isinstance(event, Finished):
            self.usage, self.timings = event.usage, event.timings
        if self.observer is not None:
            self.observer.observe(event)

    def line(self) -> str:
        """The access log's line: no query string, no prompt text, no key."""
        milliseconds = (time.monotonic() - self.started_seconds) * 1000
        words = [self.method, printable(self.path), str(self.status or "-"), f"{milliseconds:.0f}ms"]
        words += [f"model={printable(self.model)}"] if self.model else []
        if self.usage is not None:
            usage = self.usage
            words.append(f"prompt={usage.prompt_tokens} cached={usage.cached_tokens} out={usage.completion_tokens}")
            words += _speeds(self.timings, usage) if self.timings is not None else []
        words += [f"error={self.error_code}"] if self.error_code else []
        words += ["disconnected"] if self.is_disconnected else []
        return " ".join([*words, self.id])


def _speeds(timings: Timings, usage: Usage) -> list[str]:
    """The measures of one generation: milliseconds, tokens per second, and the engine's peak memory."""
    words = [f"queue={timings.queue_seconds * 1000:.0f}ms", f"first={timings.time_to_first_token_seconds * 1000:.0f}ms"]
    read_tokens, spoken_tokens = usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens - 1
    if timings.prefill_seconds > 0:
        words.append(f"prefill={read_tokens / timings.prefill_seconds:.0f}tok/s")
    if timings.decode_seconds > 0 and spoken_tokens > 0:
        words.append(f"decode={spoken_tokens / timings.decode_seconds:.1f}tok/s")
    if timings.peak_memory_bytes:
        words.append(f"peak={timings.peak_memory_bytes / 1e9:.2f}GB")
    return words


def record_of(scope: Any) -> RequestRecord:
    """The record that `RequestLog` put into the request's scope."""
    record = scope[RECORD]
    assert isinstance(record, RequestRecord)
    return record


class Endable(Protocol):
    """An answer under way."""

    def end(self, error: PensieveError) -> None:
        """End it with that error, soon."""


class Ledger:
    """All requests of one server, in numbers; and every answer under way, so that a stop can end them."""

    def __init__(self) -> None:
        self.started_seconds = time.monotonic()
        self.live: set[Endable] = set()
        self.live_seconds = -math.inf
        """When an answer was last under way, on the monotonic clock."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when an answer begins or ends; work of low priority makes way at once."""
        self.is_stopping = False
        self.drain = DrainRate()
        self._counts = {"received": 0, "completed": 0, "failed": 0, "disconnected": 0}
        self._known_fields: set[str] = set()
        self.tally = Tally()

    def begin(self, answer: Endable) -> None:
        """An answer is under way."""
        self.live.add(answer)
        self.on_change()

    def end(self, answer: Endable) -> None:
        """It is no more."""
        self.live.discard(answer)
        self.live_seconds = time.monotonic()
        self.on_change()

    def open(self) -> None:
        """A request came."""
        self._counts["received"] += 1

    def close(self, record: RequestRecord) -> None:
        """A request ended: count and log it."""
        if record.is_disconnected:
            self._counts["disconnected"] += 1
        elif record.error_code or record.status >= 400:
            self._counts["failed"] += 1
        else:
            self._counts["completed"] += 1
        if record.usage is not None:
            self.tally.add(time.monotonic() - record.started_seconds, record.usage, record.timings)
        log.info("%s", record.line())

    def counts(self) -> dict[str, int]:
        """Numbers for /health."""
        received, *ended = self._counts.values()
        return self._counts | {"running": received - sum(ended)}

    def note_unknown_fields(self, names: Iterable[str]) -> None:
        """Log each field that requests carry and nobody reads, once a process."""
        for name in map(printable, names):
            if name not in self._known_fields and len(self._known_fields) < KNOWN_FIELDS_LIMIT:
                self._known_fields.add(name)
                log.warning("requests carry the field %s, which is not known here and changes nothing", name)

    def end_all(self, error: PensieveError) -> None:
        """End every answer under way with that error."""
        for answer in tuple(self.live):
            answer.end(error)
