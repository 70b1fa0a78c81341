"""Gives each admitted sequence a slot of llama.cpp: waits, copies and makes room as `slots` decides. On the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pensieve.errors import BackendFailure
from pensieve.inference.llamacpp.engine import Engine
from pensieve.inference.llamacpp.slots import SlotBook, Surplus, Take


class Seats:
    """The engine's slots and who sits where."""

    def __init__(self, engine: Engine, *, num_slots: int, capacity_tokens: int, aside_tokens: int) -> None:
        """`aside_tokens`: how many tokens may be kept in files when their slot is needed."""
        self._engine = engine
        self._capacity_tokens = capacity_tokens
        self._book = SlotBook(num_slots, can_copy=not engine.sees_images, aside_tokens=aside_tokens)
        self._choosing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._chores = ThreadPoolExecutor(1, "slots")

    async def take(self, prompt: Sequence[int], reserved_tokens: Callable[[], int]) -> int:
        """The slot for this prompt, once it is to be had. `reserved_tokens`: of all that run, this one included."""
        deadline: float | None = None
        while True:
            may_join = deadline is None or time.monotonic() < deadline
            async with self._choosing:
                decision = self._book.choose(prompt, may_join=may_join)
                if isinstance(decision, Take):
                    return await self._sit(decision, prompt, reserved_tokens())
            if deadline is None and not decision.is_reading:
                deadline = time.monotonic() + decision.missing_tokens * self._book.seconds_per_token
            await self._wait(deadline)

    def has_read(self, slot: int, num_tokens: int, seconds: float) -> None:
        """The prompt in this slot is read: so many tokens took so long."""
        self._book.has_read(slot)
        self._book.measure(num_tokens, seconds)
        self._tell()

    def leave(self, slot: int, tokens: Sequence[int]) -> None:
        """The slot is idle again and holds these tokens."""
        self._book.end(slot, tokens)
        self._tell()

    def close(self) -> None:
        """Wait for what is being copied."""
        self._chores.shutdown()

    async def _wait(self, deadline: float | None) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                await changed.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _sit(self, take: Take, prompt: Sequence[int], reserved_tokens: int) -> int:
        surplus = self._book.surplus(take, prompt, reserved_tokens, self._capacity_tokens)
        for slot in surplus.emptied:
            self._book.empty(slot)
        self._book.begin(surplus.take.slot, prompt)
        preparing = asyncio.get_running_loop().run_in_executor(self._chores, self._prepare, surplus)
        preparing.add_done_callback(lambda done: self._settle(surplus, done))
        is_seated = False
        try:
            await asyncio.shield(preparing)
            is_seated = True
        finally:
            if not is_seated:  # nobody comes to sit here any more
                self.leave(surplus.take.slot, ())
        return surplus.take.slot

    def _settle(self, surplus: Surplus, done: asyncio.Future[set[int]]) -> None:
        """What was put aside is to be had, or it is not; also where nobody waits for it any more."""
        is_known = not done.cancelled() and done.exception() is None
        for number in done.result() if is_known else _numbers(surplus):
            self._book.forget(number)

    def _prepare(self, surplus: Surplus) -> set[int]:
        """On the thread for chores: the numbers of what was lost. What fails here costs time, never an answer."""
        take, engine, lost = surplus.take, self._engine, _numbers(surplus)
        try:
            for slot, number in surplus.put_aside:
                engine.save(slot, _name(number))
                lost.discard(number)
            for slot in surplus.emptied:
                engine.erase(slot)
            if take.copied_from is not None:
                engine.copy(take.copied_from, take.slot)
            if take.fetched is not None:
                engine.restore(take.slot, _name(take.fetched))
                lost.discard(take.fetched)
        except BackendFailure:
            pass
        for number in (*surplus.dropped, *lost):
            engine.forget(_name(number))
        return lost


def _numbers(surplus: Surplus) -> set[int]:
    """What is saved and fetched."""
    fetched = () if surplus.take.fetched is None else (surplus.take.fetched,)
    return {*fetched, *(number for _, number in surplus.put_aside)}


def _name(number: int) -> str:
    return f"aside-{number}.bin"
