"""A real server on a real loopback socket, in the test's own event loop, over a scripted backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from pensieve.config.settings import Folders, ServerSettings
from pensieve.inference.backend import Backend
from pensieve.inference.router import Router
from pensieve.inference.scripted import Script, ScriptedBackend
from pensieve.server.address import bind, url_of
from pensieve.server.app import create_app
from pensieve.server.ledger import Ledger
from pensieve.server.media import Fetches
from pensieve.server.run import Server
from pensieve.server.terminal_keys import TerminalKeys
from pensieve.wire.sse import SseDecoder, SseEvent

NO_FOLDERS = Folders(Path("/nowhere"), Path("/nowhere"), Path("/nowhere"))


class Live:
    """A server that listens, the backend behind it, and a client of it."""

    def __init__(self, backend: ScriptedBackend, url: str, ledger: Ledger, server: Server) -> None:
        self.backend = backend
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.ledger = ledger
        self.server = server
        self.client = httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)

    async def ask(self, text: str = "hello there", **changes: Any) -> httpx.Response:
        """POST one message and wait for the whole answer."""
        return await self.client.post("/v1/messages", json=body(text, **changes))

    async def raw(self, request: bytes) -> bytes:
        """Everything that comes back for these bytes, until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def leave(self, request: bytes) -> None:
        """Send these bytes and go away once the server has taken them up."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        while not self.ledger.counts()["running"]:  # noqa: ASYNC110 - the server has nothing to wait on
            await asyncio.sleep(0.01)
        writer.close()

    async def settled(self) -> None:
        """Wait until no request is running."""
        while self.ledger.counts()["running"]:  # noqa: ASYNC110 - the server has nothing to wait on
            await asyncio.sleep(0.01)


def body(text: str = "hello there", **changes: Any) -> dict[str, Any]:
    """The smallest body of a request, with changes."""
    return {"model": "any", "max_tokens": 100, "messages": [{"role": "user", "content": text}]} | changes


def frames(response: httpx.Response) -> list[SseEvent]:
    """The frames of a whole stream."""
    assert response.headers["content-type"].startswith("text/event-stream")
    return SseDecoder().feed(response.content)


def names(response: httpx.Response) -> list[str]:
    """The frames' names, in order."""
    return [frame.event for frame in frames(response)]


@asynccontextmanager
async def serving(
    script: Script | None = None,
    *,
    instead: Backend | None = None,
    fetcher: Fetches | None = None,
    batches: Path | None = None,
    keys: TerminalKeys | None = None,
    **settings: Any,
) -> AsyncIterator[Live]:
    """A server for a script, or for another backend, with these settings; it has ended when the block is left."""
    script = script or Script.saying("one two three")
    backend = ScriptedBackend(script)
    wanted = ServerSettings(port=0, **settings)
    listener = await asyncio.to_thread(bind, wanted, NO_FOLDERS)
    router = Router(script.spec, lambda _spec: instead or backend)
    app = create_app(router, wanted, version="1.2.3", fetcher=fetcher, keys=keys, batches=batches)
    listening = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_listening() -> None:
        loop.call_soon_threadsafe(listening.set)

    server = Server(app, on_listening)
    live = Live(backend, url_of(listener), app.state.ledger, server)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await listening.wait()
    try:
        yield live
    finally:
        await live.client.aclose()
        server.should_exit = True
        await task
