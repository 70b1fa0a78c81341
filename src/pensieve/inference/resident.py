"""One model that is in memory for the router: its backend, who uses it, and what it holds. Decides nothing."""

from __future__ import annotations

import asyncio
import time

import msgspec

from pensieve.errors import PensieveError
from pensieve.inference.backend import Backend, Replaceable
from pensieve.inference.prediction import predict
from pensieve.inference.supervision import MemoryStatus, Supervised, WorkerStatus
from pensieve.models.spec import ModelSpec


class Resident:
    """A backend that answers, and the requests it has."""

    def __init__(self, spec: ModelSpec, backend: Backend) -> None:
        self.spec = spec
        self.backend = backend
        self.num_running = 0
        self.used_seconds = time.monotonic()
        self.is_leaving = False
        """It is about to leave memory: whoever comes now waits for what takes its place."""
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """A request begins."""
        self.num_running += 1
        self._idle.clear()

    def leave(self) -> None:
        """A request has ended."""
        self.num_running -= 1
        self.used_seconds = time.monotonic()
        if not self.num_running:
            self._idle.set()

    async def load(self) -> None:
        """Load the model, where the backend can be told to."""
        if isinstance(self.backend, Replaceable):
            await self.backend.load()

    async def drained(self, limit_seconds: float | None = None) -> bool:
        """Wait until nothing runs, for so long at most; whether nothing does."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def end_requests(self, error: PensieveError) -> None:
        """End what runs with that error."""
        if isinstance(self.backend, Replaceable):
            self.backend.end_requests(error)

    @property
    def supervised(self) -> Supervised | None:
        """The backend, if its worker is looked after."""
        return self.backend if isinstance(self.backend, Supervised) else None

    def frees_bytes(self, *, uses_cards: bool) -> int:
        """What comes back when it goes; a card's part is the planned one, since nobody tells it by process."""
        worker = self.supervised
        memory = None if worker is None else worker.status.memory
        if memory is None:
            return 0
        return max(memory.private_bytes, predict(self.spec).weight_bytes) if uses_cards else memory.private_bytes


class Overseer:
    """The workers of all models, one after another or together, as one that is looked after: counts never go back."""

    def __init__(self) -> None:
        self._past: WorkerStatus | None = None
        self._past_memory: MemoryStatus | None = None
        self._last: Supervised | None = None
        self._now: tuple[Supervised, ...] = ()

    def watch(self, now: tuple[Supervised, ...]) -> Overseer | None:
        """Itself over these, the current one first; None where there never was one."""
        self._now = now
        return self if now or self._past is not None else None

    def gone(self, worker: Supervised) -> None:
        """Keep the counts of one that leaves."""
        self._past = _sum(worker.status, self._past)
        self._past_memory = _sum_memory(worker.memory, self._past_memory)
        self._last = worker

    @property
    def status(self) -> WorkerStatus:
        """The current one's state, and the counts of all."""
        states = [worker.status for worker in self._now]
        if not states:
            assert self._past is not None, "an overseer is shown once it has seen a worker"
            return msgspec.structs.replace(self._past, state="unloaded", pid=0, memory=None)
        total = states[0]
        for other in [*states[1:], self._past]:
            total = _sum(total, other)
        return total

    @property
    def memory(self) -> MemoryStatus:
        """How memory is, as the current one's guard knows it, and what all guards have counted."""
        if self._now:
            return _sum_memory(self._now[0].memory, self._past_memory)
        assert self._last is not None, "an overseer is shown once it has seen a worker"
        assert self._past_memory is not None, "what left was counted"
        now = self._last.memory
        return msgspec.structs.replace(
            self._past_memory, reading=now.reading, level=now.level, is_accepting=now.is_accepting
        )

    def reset(self) -> None:
        """Forget crashes and suspicions of all."""
        for worker in self._now:
            worker.reset()


def _sum(status: WorkerStatus, other: WorkerStatus | None) -> WorkerStatus:
    """The first one's state with the counts of both."""
    if other is None:
        return status
    names = ("num_crashes", "num_hangs", "num_unloads", "num_loads", "num_outgrown")
    return msgspec.structs.replace(status, **{name: getattr(status, name) + getattr(other, name) for name in names})


def _sum_memory(status: MemoryStatus, other: MemoryStatus | None) -> MemoryStatus:
    """How memory is after the first, with the counts of both."""
    if other is None:
        return status
    lowest = [one.lowest_available_bytes for one in (status, other) if one.lowest_available_bytes is not None]
    return msgspec.structs.replace(
        status,
        lowest_available_bytes=min(lowest, default=None),
        num_refused=status.num_refused + other.num_refused,
        num_entered={level: count + other.num_entered.get(level, 0) for level, count in status.num_entered.items()},
    )
