"""What is looked after while a worker lives: signs of life, memory it should not hold, the orders of memory's level.

Decides from what it is shown; who owns the worker acts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from pensieve.config.settings import Settings
from pensieve.devices.levels import Measures
from pensieve.devices.processes import read_process
from pensieve.inference.prediction import predict
from pensieve.inference.worker.process import WorkerProcess
from pensieve.models.sizes import gigabytes
from pensieve.models.spec import ModelSpec

UNLOAD_SECONDS = 2.0 if sys.platform == "darwin" else 0.0
"""How long a worker gets to end in order when memory runs out: Linux takes back all that a killed process held, while
memory wired for a Mac's GPU can be stranded."""

IDLE_FACTOR = 4.0
"""With nothing running and memory Safe, the machine is woken so much less often."""

QUIET_SECONDS = 3.0
"""After the last answer spare buffers go back; a worker is weighed after that."""

BUSY_SECONDS = 30.0
"""A worker that always has something to do is judged by the least that it held for so long."""

DRAIN_SECONDS = 60.0
"""So long do new requests wait for a worker to be replaced; if what runs on it takes longer, they go on as before."""

REST_FACTOR = 10.0
"""After a drain in vain nobody waits for so many times as long."""

BEATS = 6
LONGEST_BEAT_SECONDS = 5.0

SLACK_BYTES = 256 * 2**20
SLACK_SHARE = 0.1
"""A worker may hold so much more than planned, whichever is more: of what it held once it was loaded."""


async def watch(tend: Callable[[], Awaitable[bool]], pause_seconds: Callable[[bool], float]) -> None:
    """Tend, again and again, until cancelled."""
    while True:
        is_busy = await tend()
        await asyncio.sleep(pause_seconds(is_busy))


def planned_bytes(spec: ModelSpec, context_tokens: int) -> int:
    """What a worker of this model takes for one sequence that fills its context; 0 for a script."""
    return predict(spec).at(context_tokens) if spec.weight_bytes else 0


def running_bytes(spec: ModelSpec, worker: WorkerProcess) -> int:
    """What the requests that run on it may take; 0 for a script."""
    num, context = worker.num_running, worker.limits.context_tokens
    return predict(spec).running_bytes(num, context) if spec.weight_bytes else 0


class Duties:
    """What is due, from clock and worker."""

    def __init__(
        self, settings: Settings, *, slack_bytes: int = SLACK_BYTES, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        self._hang_seconds = settings.worker.hang_seconds
        self._beat_seconds = min(LONGEST_BEAT_SECONDS, self._hang_seconds / BEATS)
        self._interval_seconds = settings.memory.interval_seconds
        self._slack_bytes = slack_bytes
        self._told: Measures = Measures()
        self._pinged_at = self._busy_at = 0.0
        self._growth_bytes = 0
        self._loaded_bytes: int | None = None
        self._busy_seconds = busy_seconds
        self._tolerance = 1
        self._lowest_bytes: int | None = None
        self._lowest_since = 0.0

    def pause_seconds(self, is_busy: bool) -> float:
        """Until the next look."""
        return min(self._beat_seconds, self._interval_seconds * (1.0 if is_busy else IDLE_FACTOR))

    def begin(self, growth_bytes: int) -> None:
        """A worker was loaded, and plans to grow by so much."""
        self._told = Measures()
        self._loaded_bytes = None
        self._growth_bytes = growth_bytes

    def weigh(self, pid: int) -> int:
        """All that the process holds, files it maps included; its first weight is the one that growth counts from."""
        memory = read_process(pid)
        if memory is None:
            return 0
        self._loaded_bytes = memory.private_bytes if self._loaded_bytes is None else self._loaded_bytes
        return memory.resident_bytes

    def needed_bytes(self, pid: int, planned_bytes: int) -> int:
        """What a fresh worker would need: what this one holds, within the plan; 0 planned: nobody knows.

        Kept prompts and what leaked are not needed, and the wait for so much room could last for ever.
        """
        held = self.weigh(pid)
        return min(held, max(planned_bytes, self._loaded_bytes or 0)) if planned_bytes else held

    def relieve(self, worker: WorkerProcess, measures: Measures) -> None:
        """Pass on what the level asks for, once."""
        if measures != self._told:
            self._told = measures
            worker.relieve(cache_share=measures.cache_share, is_frugal=measures.is_frugal)

    def is_hung(self, worker: WorkerProcess) -> bool:
        """Whether it has been silent too long; asks for a sign of life when that is due."""
        now = time.monotonic()
        if now - self._pinged_at >= self._beat_seconds:
            self._pinged_at = now
            worker.ping()
        return worker.silent_seconds > self._hang_seconds

    def outgrown(self, worker: WorkerProcess, running_bytes: int) -> str | None:
        """Why a worker holds too much; None where it does not. What runs on it may take `running_bytes`.

        One with nothing to do is weighed as it is; a busy one by the least it held for a while, since requests come
        and go.
        """
        now, memory = time.monotonic(), read_process(worker.pid)
        if memory is None or self._loaded_bytes is None:
            return None
        if worker.num_running:
            self._busy_at = now
        is_quiet = now - self._busy_at >= QUIET_SECONDS
        held = self._least(memory.private_bytes, now, within_seconds=0.0 if is_quiet else self._busy_seconds)
        slack = self._tolerance * max(self._slack_bytes, round(SLACK_SHARE * self._loaded_bytes))
        most = self._loaded_bytes + self._growth_bytes + slack + (0 if is_quiet else running_bytes)
        if held is None or held <= most:
            return None
        return f"it holds {gigabytes(held)}, and should hold {gigabytes(most)} at most"

    def replaced(self) -> None:
        """One that outgrew its plan made place: the next may hold twice as much more.

        If the plan is wrong, and not the worker, good ones would be ended again and again otherwise.
        """
        self._tolerance *= 2

    def _least(self, num_bytes: int, now_seconds: float, *, within_seconds: float) -> int | None:
        """The least of a span that ends now; None while it has not ended. Then the next one begins."""
        if self._lowest_bytes is None or within_seconds == 0.0:
            self._lowest_bytes, self._lowest_since = num_bytes, now_seconds
        self._lowest_bytes = min(self._lowest_bytes, num_bytes)
        if now_seconds - self._lowest_since < within_seconds:
            return None
        lowest, self._lowest_bytes = self._lowest_bytes, None
        return lowest


class Draining:
    """While a worker that outgrew its plan has something to do, nobody new is let in."""

    def __init__(self) -> None:
        self.reason = ""
        """Why; empty while nothing is drained."""
        self._since_seconds = 0.0
        self._rests_until_seconds = 0.0
        self._is_over = asyncio.Event()
        self._is_over.set()

    @property
    def takes_too_long(self) -> bool:
        """Whether others have waited long enough."""
        return bool(self.reason) and time.monotonic() - self._since_seconds > DRAIN_SECONDS

    @property
    def is_resting(self) -> bool:
        """Whether others waited in vain of late, and are not to wait again yet."""
        return time.monotonic() < self._rests_until_seconds

    def give_up(self) -> None:
        """What runs takes too long: the others go on beside it, for a good while."""
        self._rests_until_seconds = time.monotonic() + REST_FACTOR * DRAIN_SECONDS
        self.end()

    def begin(self, reason: str) -> None:
        """From now on requests wait."""
        self.reason, self._since_seconds = reason, time.monotonic()
        self._is_over.clear()

    def end(self) -> None:
        """They wait no longer; safe to call when none does."""
        self.reason = ""
        self._is_over.set()

    async def wait(self) -> None:
        """Until it is over."""
        await self._is_over.wait()
