"""Works the queue of batches off: takes requests when there is room for them, makes way, and keeps every result.

What may run is `policy`'s to say, how a request is answered `answers`'; the file is asked on a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pensieve.errors import (
    BackendFailure,
    DiskFull,
    HistoryUnusable,
    Overloaded,
    PensieveError,
    WorkerCrashed,
    WorkerFailed,
)
from pensieve.inference.router import Router
from pensieve.server.batches.policy import ALONE_SECONDS, PATIENCE, Room, View, may_change_model, room
from pensieve.server.batches.store import MAX_ATTEMPTS, BatchStore, Place, Waiting
from pensieve.server.ledger import Ledger
from pensieve.server.middleware import as_error

log = logging.getLogger("pensieve.server")

T = TypeVar("T")

TICK_SECONDS = 0.25
"""While something waits."""
HOUSEKEEPING_SECONDS = 1.0
"""Between two questions to the file that nothing gave reason for: clients are waiting for the processor."""
REST_SECONDS = 300.0
"""While nothing does: results grow old slowly."""
TROUBLE_SECONDS = 30.0
"""After the file failed, or while another server works it off."""


class Answers(Protocol):
    """How a request is answered."""

    async def answer(self, waiting: Waiting) -> bytes:
        """The result; raises what the answer ended with."""
        ...

    def failed(self, waiting: Waiting, error: PensieveError) -> bytes:
        """The result of a request that failed for good."""
        ...


class Run(NamedTuple):
    """A request under way."""

    waiting: Waiting
    task: asyncio.Task[None]


class BatchQueue:
    """The batches of one server. The file is made when the first batch is."""

    def __init__(
        self, path: Path, router: Router, ledger: Ledger, answers: Answers, now: Callable[[], float] = time.time
    ) -> None:
        self.now = now
        self._path = path
        self._router = router
        self._ledger = ledger
        self._answers = answers
        self._store: BatchStore | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._runs: dict[Place, Run] = {}
        self._times_made_way: Counter[Place] = Counter()
        self._paused_until_seconds = 0.0
        self._worked_seconds = time.monotonic()
        self._crowds: deque[tuple[float, int]] = deque()
        """When so many live requests ran at once; falling numbers, as later larger ones make earlier ones forgotten."""
        self._wake = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._has_changed = True
        self._housekeeping_seconds = 0.0

    @property
    def num_running(self) -> int:
        """Requests under way."""
        return len(self._runs)

    def start(self) -> None:
        """Go on with what an earlier server left."""
        self._ledger.on_change = self._on_live_change
        self._work = asyncio.create_task(self._go_on())
        self._work.add_done_callback(self._on_broken)

    async def stop(self) -> None:
        """Put back what is under way, and close the file; safe to call twice."""
        self._is_stopped = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        await self._end(self._runs.values())
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    async def ask(self, act: Callable[[BatchStore], T]) -> T:
        """What that gives when the file is asked; raises `BackendFailure` where the file fails."""
        if self._is_stopped:
            raise Overloaded("the server is stopping", retry_after_seconds=5.0)
        return await self._ask(act)

    def changed(self) -> None:
        """There is something to do."""
        self._has_changed = True
        self._wake.set()

    async def _ask(self, act: Callable[[BatchStore], T]) -> T:
        """What that gives; it is done even if nobody waits for it any more: a result that has come is never lost."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._act, act))

    def _act(self, act: Callable[[BatchStore], T]) -> T:
        try:
            if self._store is None:
                self._store = BatchStore(self._path)
            return act(self._store)
        except (HistoryUnusable, DiskFull, OSError) as error:
            log.error("%s", error)  # noqa: TRY400 - our own words say it all
            raise BackendFailure("batches cannot be kept or read now: the server's log tells why") from error

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()

    # The loop.

    async def _go_on(self) -> None:
        while True:
            self._wake.clear()
            try:
                rest_seconds = await self._step()
            except BackendFailure:
                rest_seconds = TROUBLE_SECONDS
            try:
                async with asyncio.timeout(rest_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _step(self) -> float:
        """Do what is due; gives the time until the next look."""
        if self._has_changed or time.monotonic() >= self._housekeeping_seconds:
            self._has_changed = False
            rest_seconds = await self._keep_house()
            if rest_seconds is not None:
                return rest_seconds
            self._housekeeping_seconds = time.monotonic() + HOUSEKEEPING_SECONDS
        view = self._view()
        self._make_way(room(view))
        await self._begin(view)
        return TICK_SECONDS

    async def _keep_house(self) -> float | None:
        """End what is over; gives how long to rest, or None where something waits."""
        if self._store is None and not await asyncio.to_thread(self._path.exists):
            return REST_SECONDS
        if not await self._ask(lambda store: store.own()):
            return TROUBLE_SECONDS
        now = self.now()
        over = await self._ask(lambda store: store.over(now))
        await self._end([run for run in self._runs.values() if run.waiting.place.batch in over])
        await self._ask(lambda store: store.settle(now))
        if not await self._ask(lambda store: store.num_waiting()):
            self._times_made_way.clear()
            return REST_SECONDS
        return None

    def _on_broken(self, work: asyncio.Task[None]) -> None:
        """A mistake of ours ended the loop: it is logged, and the loop goes on later."""
        error = None if work.cancelled() else work.exception()
        if error is not None:
            as_error(error, "the queue of batches")
            asyncio.get_running_loop().call_later(TROUBLE_SECONDS, lambda: None if self._is_stopped else self.start())

    def _view(self) -> View:
        workers = self._router.supervised
        now = time.monotonic()
        return View(
            num_places=self._router.num_places,
            num_live=len(self._ledger.live),
            num_live_lately=self._num_live_lately(now),
            num_running=len(self._runs),
            quiet_seconds=now - self._ledger.live_seconds,
            waited_seconds=now - self._worked_seconds,
            level="Safe" if workers is None else workers.memory.level,
            is_paused=now < self._paused_until_seconds,
        )

    def _num_live_lately(self, now_seconds: float) -> int:
        while self._crowds and self._crowds[0][0] < now_seconds - ALONE_SECONDS:
            self._crowds.popleft()
        return max(len(self._ledger.live), self._crowds[0][1] if self._crowds else 0)

    def _on_live_change(self) -> None:
        """Somebody came or went: who must make way does so before the engine hears of the newcomer."""
        num_live = len(self._ledger.live)
        while self._crowds and self._crowds[-1][1] <= num_live:
            self._crowds.pop()
        self._crowds.append((time.monotonic(), num_live))
        if self._runs:
            self._make_way(room(self._view()))

    def _make_way(self, allowed: Room) -> None:
        runs = list(self._runs.values())
        staying = [run for run in runs if not allowed.is_for_patient or self._is_patient(run.waiting.place)]
        for run in runs:
            if run not in staying[: allowed.num_runs] and not run.task.cancelling():
                self._times_made_way[run.waiting.place] += 1
                run.task.cancel()

    def _is_patient(self, place: Place) -> bool:
        return self._times_made_way[place] >= PATIENCE

    async def _begin(self, view: View) -> None:
        allowed = room(view)
        num_free = allowed.num_runs - len(self._runs)
        besides = frozenset(self._runs)
        patient = frozenset(place for place in self._times_made_way if self._is_patient(place)) - besides
        is_choosy = allowed.is_for_patient and not allowed.is_hungry
        if not allowed.may_begin or num_free <= 0 or (is_choosy and not patient):
            return
        models, only = await self._models(view), patient if is_choosy else None
        if not models:
            return
        for waiting in await self._ask(lambda store: store.take(models, besides, num_free, only)):
            if allowed.is_hungry:
                self._times_made_way[waiting.place] = PATIENCE
            self._worked_seconds = time.monotonic()
            task = asyncio.create_task(self._run(waiting))
            self._runs[waiting.place] = Run(waiting, task)
            task.add_done_callback(partial(self._ended, waiting.place))
        self._make_way(room(self._view()))  # somebody may have come while the file was asked

    async def _models(self, view: View) -> frozenset[str]:
        """The names whose model is at hand; else, where nobody minds, those of one other model."""
        names: dict[str, set[str]] = {}
        for name in await self._ask(lambda store: store.models()):
            names.setdefault(self._router.resolve(name).name, set()).add(name)
        current = self._router.specs[0].name
        at_hand = [found for model, found in names.items() if model == current or self._router.is_resident(model)]
        if not at_hand and names and not self._runs and may_change_model(view):
            at_hand = [next(iter(names.values()))]
        return frozenset().union(*at_hand)

    # One request.

    async def _run(self, waiting: Waiting) -> None:
        if waiting.num_attempts > MAX_ATTEMPTS:
            problem = f"it was begun {MAX_ATTEMPTS} times, and each time the server or its worker ended"
            await self._fail(waiting, BackendFailure(problem))
            return
        try:
            result = await self._answers.answer(waiting)
        except asyncio.CancelledError:
            await self._put_back(waiting)
            raise
        except (Overloaded, WorkerFailed) as error:
            self._pause(error.retry_after_seconds)
            await self._put_back(waiting)
        except WorkerCrashed:
            self._pause(1.0)  # counted: it may have been this request
        except PensieveError as error:
            await self._fail(waiting, error)
        else:
            await self._ask(lambda store: store.finish(waiting.place, "succeeded", result))

    async def _fail(self, waiting: Waiting, error: PensieveError) -> None:
        result = self._answers.failed(waiting, error)
        await self._ask(lambda store: store.finish(waiting.place, "errored", result))

    async def _put_back(self, waiting: Waiting) -> None:
        await self._ask(lambda store: store.put_back(waiting.place))

    def _pause(self, seconds: float) -> None:
        self._paused_until_seconds = max(self._paused_until_seconds, time.monotonic() + max(1.0, seconds))

    def _ended(self, place: Place, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(place)
        self._worked_seconds = time.monotonic()
        error = None if task.cancelled() else task.exception()
        if error is not None:  # a mistake of ours, or the file failed: it is counted as an attempt, and tried again
            as_error(error, f"batch {run.waiting.uid}/{place.at}")
            self._pause(TROUBLE_SECONDS)
        self.changed()

    async def _end(self, runs: Iterable[Run]) -> None:
        tasks = [run.task for run in tuple(runs)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
