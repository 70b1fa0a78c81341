"""A backend's events as they come to one response, beside two other things that can happen: silence, and a client
that leaves. Knows no frame format: who writes asks `take` again and again, until `is_over`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType

from starlette.types import Receive

from pensieve.errors import BackendFailure, Overloaded, PensieveError
from pensieve.generation import Finished, GenerationEvent
from pensieve.server.ledger import Ledger, RequestRecord
from pensieve.server.middleware import as_error


class Feed:
    """Reads the generator in one task and listens for a disconnect in another; leaving the block ends both.

    One timer a response watches for silence: a timer or a task for every token would cost more than the token.
    """

    def __init__(
        self,
        events: AsyncGenerator[GenerationEvent, None],
        receive: Receive,
        record: RequestRecord,
        ledger: Ledger,
        silence_seconds: float,
    ) -> None:
        self.error: PensieveError | None = None
        self.is_silent = False
        """Nothing was written for `silence_seconds`."""
        self._events = events
        self._receive = receive
        self._record = record
        self._ledger = ledger
        self._silence_seconds = silence_seconds
        self._loop = asyncio.get_running_loop()
        self._ready: list[GenerationEvent] = []
        self._has_place = False
        self._has_ended = False
        self._wake = asyncio.Event()
        self._last_write_seconds = self._loop.time()

    async def __aenter__(self) -> Feed:
        """Start reading and listening."""
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(self._on_read)
        self._listener = asyncio.create_task(self._listen())
        self._timer = self._loop.call_later(self._silence_seconds, self._on_timer)
        self._ledger.begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End both tasks; the generator is closed when this returns."""
        self._ledger.end(self)
        self._timer.cancel()
        self._reader.cancel()
        self._listener.cancel()
        await asyncio.wait([self._reader, self._listener])
        if self._has_place:
            self._ledger.drain.end(self._loop.time())

    @property
    def is_disconnected(self) -> bool:
        """The client has left: nobody reads what is written."""
        return self._record.is_disconnected

    @property
    def is_over(self) -> bool:
        """Nothing more will come: the answer is whole, or broke off, or nobody is there to hear it."""
        return self.is_disconnected or (self._has_ended and not self._ready)

    async def take(self) -> list[GenerationEvent]:
        """All events that are ready; waits for one, or for silence, the end or a disconnect, which bring none."""
        while not (self._ready or self.is_over or self.is_silent):
            self._wake.clear()
            await self._wake.wait()
        ready, self._ready = self._ready, []
        for event in ready:
            self._record.observe(event)
        return ready

    async def take_first(self, timeout_seconds: float) -> list[GenerationEvent]:
        """Like `take`, for so long at most; an error that comes before any event is raised."""
        try:
            async with asyncio.timeout(timeout_seconds):
                ready = await self.take()
        except TimeoutError:
            return []
        if self.error is not None and not ready:
            raise self.error
        return ready

    def written(self) -> None:
        """Something was written: the silence begins anew."""
        self.is_silent = False
        self._last_write_seconds = self._loop.time()

    def end(self, error: PensieveError) -> None:
        """End the answer with that error; what is ready is still delivered."""
        if not self._has_ended:
            self.error = error
            self._reader.cancel()

    async def _read(self) -> None:
        event: GenerationEvent | None = None
        async with aclosing(self._events) as events:
            async for event in events:
                if not self._has_place:
                    self._has_place = True
                    self._ledger.drain.begin(self._loop.time())
                self._ready.append(event)
                self._wake.set()
        if not isinstance(event, Finished):
            raise BackendFailure("the answer broke off")

    def _on_read(self, reader: asyncio.Task[None]) -> None:
        raised = None if reader.cancelled() else reader.exception()
        if raised is not None and self.error is None:
            self.error = as_error(raised, self._record.id)
            if isinstance(self.error, Overloaded) and self.error.is_about_queue:
                self.error.retry_after_seconds = self._ledger.drain.turn_away(self.error.retry_after_seconds)
        self._has_ended = True
        self._wake.set()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._record.is_disconnected = True
        self._wake.set()

    def _on_timer(self) -> None:
        left_seconds = self._last_write_seconds + self._silence_seconds - self._loop.time()
        if left_seconds <= 0:
            self.is_silent = True
            self._wake.set()
        self._timer = self._loop.call_later(left_seconds if left_seconds > 0 else self._silence_seconds, self._on_timer)
