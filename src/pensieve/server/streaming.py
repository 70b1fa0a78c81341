"""One answer to one client, as a stream of frames or whole. Decides when a stream opens, pings and ends.

Knows no API.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Send

from pensieve.errors import PensieveError
from pensieve.generation import Collector, GenerationEvent
from pensieve.server.envelope import send_json
from pensieve.server.feed import Feed
from pensieve.server.ledger import RequestRecord
from pensieve.wire.exchange import Encoder, Settled

OPENING_SECONDS = 0.25
"""A refusal comes within milliseconds and keeps its HTTP status; longer than this, a reader of the stream would start
to wonder whether anybody is there, so that the stream opens and pings."""
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def send_stream(feed: Feed, encoder: Encoder, record: RequestRecord, send: Send) -> None:
    """Send the answer as frames; an error after the stream has opened is its last frame."""
    frames = _encode(encoder, await feed.take_first(OPENING_SECONDS))
    if feed.is_disconnected:
        return
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    await _write(feed, send, frames or encoder.ping())
    while not feed.is_over:
        frames = _encode(encoder, await feed.take())
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
