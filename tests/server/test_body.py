"""Bodies that are too large, or come in another form."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import msgspec
import pytest

from live_server import Live, body, serving

MEGABYTE = 10**6


async def test_a_body_of_20_megabytes_is_refused_and_the_connection_lives(live: Live) -> None:
    """The client that sends it all gets to read the answer, and can go on."""
    response = await live.client.post("/v1/messages", content=b"x" * 20 * MEGABYTE)
    assert (response.status_code, response.json()["error"]["type"]) == (413, "request_too_large")
    assert response.headers["x-should-retry"] == "false"
    assert (await live.ask()).status_code == 200


async def test_a_body_without_announced_length_is_refused_too(live: Live) -> None:
    """As soon as it has grown over the limit."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * MEGABYTE

    response = await live.client.post("/v1/messages", content=pieces())
    assert (response.status_code, response.json()["error"]["type"]) == (413, "request_too_large")


async def test_an_announced_length_is_refused_before_a_byte_is_sent(live: Live) -> None:
    """A client that asks first is spared the upload, and told to begin anew."""
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99000000\r\nExpect: 100-continue\r\n\r\n"
    answer = await live.raw(head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(("over_bytes", "status"), [(0, 200), (1, 413)])
async def test_the_limit_is_exact(over_bytes: int, status: int) -> None:
    """A body of just that size is served."""
    content = msgspec.json.encode(body("x" * 2_000))
    async with serving(max_body_bytes=len(content) - over_bytes) as live:
        assert (await live.client.post("/v1/messages", content=content)).status_code == status


async def test_a_large_body_within_the_limit_is_served(live: Live) -> None:
    """Also above the size from which it is decoded beside the event loop."""
    assert (await live.ask("word " * 20_000, max_tokens=1)).json()["usage"]["input_tokens"] == 20_000
    assert (await live.ask("x" * 2 * MEGABYTE)).status_code == 200


async def test_a_compressed_body_is_refused_in_clear_words(live: Live) -> None:
    """And not taken for broken JSON."""
    packed = gzip.compress(msgspec.json.encode(body()))
    response = await live.client.post("/v1/messages", content=packed, headers={"content-encoding": "gzip"})
    assert response.status_code == 400
    assert "send it plain" in response.json()["error"]["message"]


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(live: Live) -> None:
    """No answer is begun, and the request counts as disconnected."""
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"
    await live.leave(head)
    await live.settled()
    assert live.ledger.counts() == {"received": 1, "completed": 0, "failed": 0, "disconnected": 1, "running": 0}
