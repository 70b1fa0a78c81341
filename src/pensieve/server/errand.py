"""Work for one client that gives one thing: it ends with the client that leaves, and with the server that stops.

An answer in pieces has a `Feed` instead. Knows no route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from pensieve.errors import PensieveError
from pensieve.server.ledger import Ledger

T = TypeVar("T")


async def run_errand(work: Coroutine[Any, Any, T], receive: Receive, ledger: Ledger) -> T:
    """What the work gives; raises what it raises, what the server ends it with, or `ClientDisconnect`."""
    errand, listener = _Errand(asyncio.create_task(work)), asyncio.create_task(_until_left(receive))
    ledger.begin(errand)
    try:
        await asyncio.wait([errand.task, listener], return_when=asyncio.FIRST_COMPLETED)
        if errand.error is not None:
            raise errand.error
        if not errand.task.done():
            raise ClientDisconnect
        return errand.task.result()
    finally:
        ledger.end(errand)
        errand.task.cancel()
        listener.cancel()
        await asyncio.wait([errand.task, listener])


class _Errand(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.error: PensieveError | None = None

    def end(self, error: PensieveError) -> None:
        """See `Endable`."""
        if not self.task.done():
            self.error = error
            self.task.cancel()


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
