"""What the HTTP server itself takes, below the application. Starting and stopping are tested with the command."""

from __future__ import annotations

import asyncio

import pytest

from live_server import Live
from pensieve.server.run import HEAD_LIMIT_BYTES

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


@pytest.mark.parametrize("line", [b"X-Name: %s\r\n" % (b"x" * 100), b"x" * 100])
async def test_headers_without_end_are_cut_off(live: Live, line: bytes) -> None:
    """Many of them or one that never ends: a client cannot fill our memory before it has shown a key."""
    answer = await live.raw(
        HEAD + (b"" if line.endswith(b"\n") else b"X-Name: ") + line * (HEAD_LIMIT_BYTES // 100 + 9)
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"larger than" in answer


async def test_headers_within_the_limit_are_read(live: Live) -> None:
    """Also when they come in small pieces, and again on the same connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    for _ in range(2):
        request = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nX-Name: " + b"x" * (HEAD_LIMIT_BYTES * 3 // 4) + b"\r\n\r\n"
        for start in range(0, len(request), 10_000):
            writer.write(request[start : start + 10_000])
            await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize(
    "request_bytes", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"]
)
async def test_what_is_no_http_is_refused(live: Live, request_bytes: bytes) -> None:
    """A client that speaks something else, TLS for one, is told so and cut off."""
    assert (await live.raw(request_bytes)).startswith(b"HTTP/1.1 400 ")
