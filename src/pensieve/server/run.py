"""Runs the application on a real socket until a signal stops it: the run file, a graceful end, backends closed.

The only file that knows uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pensieve.config.settings import Folders, ServerSettings
from pensieve.devices.scheduling import prefer_short_slices
from pensieve.errors import Overloaded
from pensieve.inference.router import Router
from pensieve.inference.server_client import RunningServer
from pensieve.server.address import bind, url_of
from pensieve.server.app import create_app
from pensieve.server.batches.queue import BatchQueue
from pensieve.server.ledger import Ledger, log
from pensieve.server.linger import Linger
from pensieve.server.run_file import RunFile
from pensieve.server.terminal_keys import TerminalKeys

GRACE_SECONDS = 3.0
"""After a signal to stop, answers under way get this long before they end with an error."""
CUT_OFF_SECONDS = 5
"""After a signal to stop, what has not ended by itself is cancelled."""
IDLE_CONNECTION_SECONDS = 75
"""Longer than clients keep idle connections, so that the server never closes one that a client is about to use."""
HEAD_LIMIT_BYTES = 64 * 1024
LOOK_SECONDS = 1.0
"""Between two looks whether anybody is left."""
STOPPING = Overloaded("the server is stopping", retry_after_seconds=5.0)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose request heads are bounded: the parser itself would keep any number of headers in memory."""

    _is_in_head = True
    _num_head_bytes = 0

    def on_message_begin(self) -> None:
        """A request line follows."""
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._is_in_head = False
        self._num_head_bytes = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has grown over the limit."""
        super().data_received(data)
        if self._is_in_head:
            self._num_head_bytes += len(data)
        if self._num_head_bytes > HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers are larger than {HEAD_LIMIT_BYTES} bytes.")


class Server(uvicorn.Server):
    """Uvicorn with our way to start and to stop; a stop by signal is a success."""

    def __init__(self, app: Starlette, on_listening: Callable[[], None]) -> None:
        super().__init__(_config(app))
        self.ledger: Ledger = app.state.ledger
        self._batches: BatchQueue | None = app.state.batches
        self._on_listening = on_listening

    @property
    def num_batched(self) -> int:
        """Requests of batches under way, which nobody waits for at the other end of a connection."""
        return 0 if self._batches is None else self._batches.num_running

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal, without raising it again at the end as uvicorn does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then tell."""
        await super().startup(sockets)
        if self._batches is not None:
            self._batches.start()
        await asyncio.to_thread(self._on_listening)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and end what is under way in order."""
        self.ledger.is_stopping = True
        timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self.ledger.end_all, STOPPING)
        try:
            if self._batches is not None:
                await self._batches.stop()
            await super().shutdown(sockets)
        finally:
            timer.cancel()


def serve(
    router: Router,
    settings: ServerSettings,
    folders: Folders,
    *,
    version: str,
    announce: Callable[[str], None],
    until_unused: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, or until all terminals have left; raises `AddressUnavailable` before anything."""
    listener = bind(settings, folders)
    prefer_short_slices()  # the workers inherit it
    url = url_of(listener)
    name, location = router.specs[0].name, router.specs[0].location
    place = str(Path(location).resolve()) if location else ""
    noted = RunningServer(url, name, os.getpid(), settings.api_key, place)
    run_file = RunFile(folders.run_file, noted)
    keys = TerminalKeys(folders.keys)

    def on_listening() -> None:
        try:
            run_file.write()
        except OSError as error:
            log.warning("other commands will not find this server: its run file cannot be written: %s", error.strerror)
        announce(f"Pensieve answers at {url} with {name}. Ctrl-C stops it.")

    server = Server(create_app(router, settings, version=version, keys=keys, batches=folders.batches), on_listening)
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_run(server, router, listener, keys if until_unused else None, settings.linger_seconds))
    finally:
        run_file.remove()


async def _run(
    server: Server, router: Router, listener: socket.socket, keys: TerminalKeys | None, linger_seconds: float
) -> None:
    leaving = None if keys is None else asyncio.create_task(_stop_once_left(server, keys, linger_seconds))
    try:
        await server.serve(sockets=[listener])
    finally:
        if leaving is not None:
            leaving.cancel()
        await router.aclose()


async def _stop_once_left(server: Server, keys: TerminalKeys, linger_seconds: float) -> None:
    linger = Linger(linger_seconds, time.monotonic())
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        counts, held = server.ledger.counts(), await asyncio.to_thread(keys.held)
        is_over = linger.is_over(
            num_terminals=len(held),
            num_running=counts["running"] + server.num_batched,
            num_received=counts["received"],
            now_seconds=time.monotonic(),
        )
        if is_over:
            log.info("every terminal has left: the server stops")
            server.should_exit = True
            return


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_CONNECTION_SECONDS,
        timeout_graceful_shutdown=CUT_OFF_SECONDS,
    )
