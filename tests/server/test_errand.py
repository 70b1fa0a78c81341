"""Work that gives one thing ends with who wanted it, counts as live, and ends when the server stops."""

from __future__ import annotations

import asyncio

import pytest

from live_server import serving
from pensieve.errors import Overloaded
from pensieve.inference.backend import Embeddings
from pensieve.inference.script import Script
from pensieve.inference.scripted import ScriptedBackend
from pensieve.server.errand import run_errand
from pensieve.server.ledger import Ledger

ASKED = b'POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 27\r\n\r\n{"model":"any","input":"a"}'


class Embedding(ScriptedBackend):
    """Gives no vector before it may."""

    def __init__(self) -> None:
        super().__init__(Script.saying("x"))
        self.may_end = asyncio.Event()
        self.has_left = False

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        """Of one number each."""
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.has_left = True
            raise
        return Embeddings(tuple(b"\0\0\x80\x3f" for _ in texts), len(texts))


async def nobody_leaves() -> dict[str, str]:
    """A client that waits."""
    await asyncio.Event().wait()
    return {}


async def test_embeddings_end_with_the_client_that_wanted_them() -> None:
    """Two thousand long texts are minutes of work for nobody."""
    backend = Embedding()
    async with serving(instead=backend) as live:
        await live.leave(ASKED)
        await live.settled()
        assert (backend.has_left, live.ledger.counts()["disconnected"], live.ledger.live) == (True, 1, set())


async def test_embeddings_come_as_numbers() -> None:
    """The whole way through the server."""
    backend = Embedding()
    backend.may_end.set()
    async with serving(instead=backend) as live:
        answer = (await live.client.post("/v1/embeddings", json={"model": "any", "input": ["a", "b"]})).json()
    assert [each["embedding"] for each in answer["data"]] == [[1.0], [1.0]]
    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


async def test_an_errand_is_live_and_ends_when_the_server_stops() -> None:
    """Batches make way for it, and a stop waits no longer for it than for an answer."""
    ledger, backend = Ledger(), Embedding()
    running = asyncio.create_task(run_errand(backend.embed(("a",)), nobody_leaves, ledger))
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(ledger.live) == 1
    ledger.end_all(Overloaded("the server is stopping", 5.0))
    with pytest.raises(Overloaded, match="stopping"):
        await running
    assert (ledger.live, backend.has_left) == (set(), True)
