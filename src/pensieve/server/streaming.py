"""One answer to one client, as a stream of frames or whole. Decides when a stream opens, pings and ends.

Knows no API.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from starlette.types import Send

from pensieve.errors import PensieveError
from pensieve.generation import Collector, GenerationEvent, PromptProgress
from pensieve.server.envelope import send_json
from pensieve.server.feed import Feed
from pensieve.server.ledger import RequestRecord
from pensieve.wire.exchange import Encoder, Settled
from pensieve.wire.progress import encode_progress

OPENING_SECONDS = 0.25
"""A refusal comes within milliseconds and keeps its HTTP status; longer than this, a reader of the stream would start
to wonder whether anybody is there, so that the stream opens and pings."""
PROGRESS_SECONDS = 0.25
"""Comments on a prompt's reading are at least so far apart: more often, nobody sees a difference."""
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Reading:
    """What a client that asks for it hears of its prompt's reading, at a bounded rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_seconds = float("-inf")

    def comment(self, events: Sequence[GenerationEvent]) -> bytes:
        """The comment that is due after these events; empty if none, and once the prompt is read."""
        newest = events[-1] if events else None
        now_seconds = self._clock()
        if not isinstance(newest, PromptProgress) or now_seconds - self._told_seconds < PROGRESS_SECONDS:
            return b""
        self._told_seconds = now_seconds
        return encode_progress(newest)


async def send_stream(
    feed: Feed, encoder: Encoder, record: RequestRecord, send: Send, reading: Reading | None = None
) -> None:
    """Send the answer as frames; an error after the stream has opened is its last frame."""
    events = await feed.take_first(OPENING_SECONDS)
    frames = _encode(encoder, events)
    if feed.is_disconnected:
        return
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    await _write(feed, send, frames or encoder.ping())
    while not feed.is_over:
        if reading is not None and (comment := reading.comment(events)):
            # Not noted as written: a reader that counts events still needs its pings.
            await send({"type": "http.response.body", "body": comment, "more_body": True})
        events = await feed.take()
        frames = _encode(encoder, events)
        if not frames and feed.is_silent:
            frames = encoder.ping()
        if frames:
            await _write(feed, send, frames)
    await send({"type": "http.response.body", "body": _ending(feed.error, encoder, record)})


async def send_whole(feed: Feed, encoder: Encoder, send: Send) -> None:
    """Send the answer in one piece; raises the error it ended with."""
    collector = Collector()
    while not feed.is_over:
        for event in await feed.take():
            collector.add(event)
        feed.written()
    if feed.is_disconnected:
        return
    if feed.error is not None:
        raise feed.error
    await send_json(send, encoder.whole(collector.answer))


async def send_settled(settled: Settled, send: Send, *, is_stream: bool) -> None:
    """Send the answer to a request that asks no model."""
    if not is_stream:
        await send_json(send, settled.whole)
        return
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    await send({"type": "http.response.body", "body": settled.frames})


def _encode(encoder: Encoder, events: Iterable[GenerationEvent]) -> bytes:
    return b"".join([encoder.encode(event) for event in events])


async def _write(feed: Feed, send: Send, frames: bytes) -> None:
    await send({"type": "http.response.body", "body": frames, "more_body": True})
    feed.written()


def _ending(error: PensieveError | None, encoder: Encoder, record: RequestRecord) -> bytes:
    if error is None:
        return b""
    record.error_code = error.code
    return encoder.error(error)
