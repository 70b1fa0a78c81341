"""The parent's side of a worker: a `Backend` that keeps one process alive for one model.

Started on first use, restarted with back-off after a crash; every request that was running then ends in one error.
Loading belongs to nobody: a client that goes away while the model loads does not stop the loading.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from pensieve.config.settings import Settings
from pensieve.devices.memory import MemoryReading, read_memory
from pensieve.devices.processes import read_process, within_limits
from pensieve.errors import (
    BackendFailure,
    CrashingRequest,
    LoadFailed,
    MemoryShort,
    PensieveError,
    WorkerCrashed,
    WorkerFailed,
)
from pensieve.generation import Finished, GenerationEvent, GenerationRequest
from pensieve.inference.backend import CacheFigures, Embeddings, Limits
from pensieve.inference.builds import learn_builds
from pensieve.inference.context import context_tokens
from pensieve.inference.fitting import why_not
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.supervision import MemoryStatus, State, WorkerStatus
from pensieve.inference.worker import frames
from pensieve.inference.worker import watch as watching
from pensieve.inference.worker.card import Card, lies_on_card
from pensieve.inference.worker.process import WorkerProcess
from pensieve.inference.worker.reloads import Reloads
from pensieve.inference.worker.restarts import Restarts
from pensieve.inference.worker.suspects import Suspects
from pensieve.inference.worker.watch import BUSY_SECONDS, SLACK_BYTES, UNLOAD_SECONDS, Draining, Duties
from pensieve.models.sizes import gigabytes
from pensieve.models.spec import ModelSpec

log = logging.getLogger(__name__)

SHUTTING_DOWN = "the server is shutting down"
ENDED_FOR_MEMORY = "memory ran out on this machine, so the model was unloaded and this answer ended: end other programs"


class WorkerBackend:
    """A `Backend` in a child process."""

    def __init__(
        self,
        spec: ModelSpec,
        settings: Settings,
        state_folder: Path | None = None,
        *,
        read: Callable[[], MemoryReading] = read_memory,
        slack_bytes: int = SLACK_BYTES,
        busy_seconds: float = BUSY_SECONDS,
        card: Card | None = None,
    ) -> None:
        """`state_folder`: where the engine may keep what survives a restart of the worker.

        A worker that holds `slack_bytes` more than it planned, for `busy_seconds` or with nothing running, is replaced.
        """
        self._state_folder = state_folder
        self._spec = spec
        self._settings = settings
        self._read = read
        self._card = card or Card(is_used=lies_on_card(spec, settings))
        self._guard = MemoryGuard(settings.memory, self._read_memory)
        self._restarts = Restarts()
        self._reloads = Reloads(settings.memory.reloads)
        self._suspects = Suspects()
        self._duties = Duties(settings, slack_bytes=slack_bytes, busy_seconds=busy_seconds)
        self._draining = Draining()
        self._worker: WorkerProcess | None = None
        self._loading: asyncio.Task[WorkerProcess] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._leaving: WorkerProcess | None = None
        """One that is being ended."""
        self._load_error: LoadFailed | None = None
        self._needed_bytes = 0
        """The most that a worker of this model was seen to hold, within the plan."""
        self._num_loads = self._num_hangs = self._num_outgrown = 0
        self._is_out_of_memory = False
        self._is_closed = False

    @property
    def status(self) -> WorkerStatus:
        """How the worker is now."""
        pid = worker.pid if (worker := self._worker) is not None and worker.is_alive else 0
        return WorkerStatus(
            state=self._state(),
            pid=pid,
            num_crashes=self._restarts.num_crashes,
            num_hangs=self._num_hangs,
            num_unloads=self._reloads.num_unloads,
            num_loads=self._num_loads,
            num_outgrown=self._num_outgrown,
            memory=read_process(pid) if pid else None,
            cached=worker.cached if worker is not None else CacheFigures(),
            last_event=self._guard.last_event,
        )

    @property
    def memory(self) -> MemoryStatus:
        """How memory is now."""
        self._guard.look()
        return self._guard.status

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`. Raises `WorkerCrashed`, `WorkerFailed` and `CrashingRequest` too."""
        self._guard.admit()
        if self._suspects.is_refused(request, time.monotonic()):
            raise CrashingRequest(model=self._spec.name)
        worker = await self._ready()
        stream = worker.new_stream()
        try:
            async with aclosing(worker.ask(stream, frames.Generate(stream, request))) as answer:
                async for frame in answer:
                    assert isinstance(frame, frames.Events)
                    for event in frame.events:
                        yield event
                        if isinstance(event, Finished):
                            self._answered(request)
                            return
        except WorkerCrashed:
            self._suspects.crashed(request, time.monotonic())
            raise

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`."""
        worker = await self._ready()
        stream = worker.new_stream()
        async with aclosing(worker.ask(stream, frames.Count(stream, request))) as answer:
            async for frame in answer:
                assert isinstance(frame, frames.Counted)
                return frame.tokens
        raise AssertionError("a stream ends with a frame or an error")

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        """See `Embeds`; a model that cannot is `InvalidRequest`."""
        self._guard.admit()
        worker = await self._ready()
        stream = worker.new_stream()
        async with aclosing(worker.ask(stream, frames.Embed(stream, texts))) as answer:
            async for frame in answer:
                assert isinstance(frame, frames.Embedded)
                return frame.embeddings
        raise AssertionError("a stream ends with a frame or an error")

    async def limits(self) -> Limits:
        """See `Backend.limits`; planned from the file's header while nothing is loaded."""
        if self._worker is not None:
            return self._worker.limits
        context = context_tokens(self._spec, self._settings.model)
        return Limits(self._spec.name, context, context, is_planned=True)

    async def load(self) -> None:
        """See `Replaceable.load`."""
        await self._ready()

    def end_requests(self, error: PensieveError) -> None:
        """See `Replaceable.end_requests`."""
        if self._worker is not None:
            self._worker.end_streams(error)

    def reset(self) -> None:
        """Forget crashes and suspicions: whoever says so has removed their cause."""
        self._restarts.answered()
        self._suspects.clear()
        self._load_error = None
        self._guard.note("reset by command")

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        self._is_closed = True
        self._draining.end()
        for task in (self._watching, self._loading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for worker in (self._worker, self._leaving):
            if worker is not None:
                await worker.stop()

    def _read_memory(self) -> MemoryReading:
        """The machine's, within what the worker may take; where there is none, within what the next one may."""
        pid = worker.pid if (worker := self._worker) is not None and worker.is_alive else 0
        return self._card.beside(within_limits(self._read(), pid))

    # Starting.

    async def _ready(self) -> WorkerProcess:
        """The living worker, started if need be."""
        await learn_builds()
        await self._draining.wait()
        if self._is_closed:
            raise BackendFailure(SHUTTING_DOWN)
        if self._worker is not None and self._worker.is_alive:
            self._keep_watch()
            return self._worker
        self._check_start()
        loading = self._begin_loading()
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled():  # by `aclose` or `_unload`; a client that leaves cancels only its own waiting
                raise self._cut_short() from None
            raise

    def _check_start(self) -> None:
        """Raise why a worker may not be started now."""
        now = time.monotonic()
        if self._loading is not None:
            return
        self._guard.look()
        if self._is_out_of_memory:
            self._check_room(now)
        elif (problem := why_not(self._spec, self._settings, self._guard)) is not None:
            raise problem
        if self._load_error is None and self._worker is None and self._restarts.has_failed(now):
            left, num_crashes = self._restarts.delay_seconds(now), self._restarts.num_in_a_row
            raise WorkerFailed(model=self._spec.name, num_crashes=num_crashes, retry_after_seconds=left)

    def _check_room(self, now_seconds: float) -> None:
        self._guard.admit()
        spare, delay = self._guard.spare_bytes(is_safe=True), self._reloads.asked_delay_seconds(now_seconds)
        if spare is not None and spare < self._needed_bytes:
            raise MemoryShort(
                f"the model was unloaded when memory ran out; it needs {gigabytes(self._needed_bytes)}, and"
                f" {gigabytes(max(0, spare))} can be had so far: end other programs",
                30.0,
            )
        if delay > 0.0:
            raise MemoryShort("the model was unloaded when memory ran out, and is loaded again shortly", delay)

    def _begin_loading(self) -> asyncio.Task[WorkerProcess]:
        self._keep_watch()
        if self._loading is None:
            self._loading = asyncio.create_task(self._start())
            self._loading.add_done_callback(self._loaded)
        return self._loading

    def _keep_watch(self) -> None:
        """Watch from the first worker on; a watch that a bug of ours ended is taken up again, and logged."""
        if self._watching is not None and self._watching.done() and not self._watching.cancelled():
            log.error("the watch over the worker broke off", exc_info=self._watching.exception())
            self._watching = None
        if self._watching is None:
            self._watching = asyncio.create_task(watching.watch(self._tend, self._duties.pause_seconds))

    async def _start(self) -> WorkerProcess:
        await self._bury()
        delay = self._restarts.delay_seconds(time.monotonic())
        if delay and self._load_error is not None:
            raise self._load_error  # it just failed: say so at once instead of failing again more slowly
        await asyncio.sleep(delay)
        began = time.monotonic()
        log.info("loading %s", self._spec.name)
        worker = await WorkerProcess.start(self._spec, self._settings, self._state_folder)
        seconds, engine = time.monotonic() - began, worker.limits.engine
        log.info("loaded %s in %.1f s%s", self._spec.name, seconds, f" ({engine})" if engine else "")
        return worker

    async def _bury(self) -> None:
        """Count a worker that ended by itself, and say in the log how."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        await worker.kill()
        self._restarts.crashed(time.monotonic())
        self._guard.note(f"the worker ended: {await worker.exit_status()}")
        log.warning("the worker of %s ended by itself. Its last words:\n%s", self._spec.name, worker.last_words)
        if self._restarts.has_failed(time.monotonic()):
            delay, num_crashes = self._restarts.delay_seconds(time.monotonic()), self._restarts.num_in_a_row
            raise WorkerFailed(model=self._spec.name, num_crashes=num_crashes, retry_after_seconds=delay)

    def _loaded(self, loading: asyncio.Task[WorkerProcess]) -> None:
        self._loading = None
        if loading.cancelled():
            return
        error = loading.exception()
        if error is None:
            self._worker, self._load_error = loading.result(), None
            self._num_loads += 1
            self._is_out_of_memory = False
            self._duties.begin(self._worker.growth_bytes)
        elif isinstance(error, LoadFailed) and error is not self._load_error:
            self._load_error = error
            self._restarts.crashed(time.monotonic())
            log.error("%s", error)

    def _cut_short(self) -> Exception:
        return BackendFailure(SHUTTING_DOWN) if self._is_closed else MemoryShort(ENDED_FOR_MEMORY, 10.0)

    def _answered(self, request: GenerationRequest) -> None:
        self._restarts.answered()
        self._suspects.answered(request)

    async def _tend(self) -> bool:
        """What is due now for memory and worker; whether anything runs that must be looked at often."""
        await self._card.look()
        self._guard.look()
        measures, worker = self._guard.measures, self._worker
        if measures.is_unloaded or worker is None or not worker.is_alive:
            self._draining.end()
        if measures.is_unloaded:
            await self._unload()
        elif worker is None or not worker.is_alive:
            self._load_again()
        else:
            planned = watching.planned_bytes(self._spec, worker.limits.context_tokens)
            self._needed_bytes = max(self._needed_bytes, self._duties.needed_bytes(worker.pid, planned))
            self._duties.relieve(worker, measures)
            await self._check_life(worker)
            await self._check_growth(worker)
        return self._guard.level != "Safe" or (self._worker is not None and self._worker.num_running > 0)

    async def _unload(self) -> None:
        """Give back all that the model holds; what runs ends with one error."""
        worker, loading = self._worker, self._loading
        if loading is not None:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        self._worker, self._leaving = None, worker
        if worker is None and loading is None:
            return
        left = self._guard.left
        self._is_out_of_memory = True
        self._reloads.unloaded(time.monotonic())
        if worker is not None:
            worker.end_streams(MemoryShort(ENDED_FOR_MEMORY, 10.0))
            await worker.stop(UNLOAD_SECONDS)
        await self._card.note_freed()
        self._guard.look()
        what = f"{self._spec.name} was unloaded: {left}, now {self._guard.left}"
        self._guard.note(what)
        log.warning("%s", what)

    def _load_again(self) -> None:
        """Where memory took the model away and there is room for it once more."""
        if not self._is_out_of_memory or self._loading is not None or self._guard.level != "Safe":
            return
        spare = self._guard.spare_bytes(is_safe=True) if self._card.has_room(self._settings.memory) else 0
        if self._reloads.is_due(time.monotonic()) and (spare is None or spare >= self._needed_bytes):
            self._guard.note(f"{self._spec.name} is loaded again")
            self._reloads.reloaded(time.monotonic())
            self._begin_loading()

    async def _check_life(self, worker: WorkerProcess) -> None:
        if not self._duties.is_hung(worker):
            return
        self._num_hangs += 1
        what = f"it gave no sign of life for {worker.silent_seconds:.0f} s"
        log.error("the worker of %s is ended: %s", self._spec.name, what)
        await worker.kill(what)
        self._begin_loading()

    async def _check_growth(self, worker: WorkerProcess) -> None:
        """A worker that holds more than it should makes place for a fresh one, between two requests."""
        outgrown = self._duties.outgrown(worker, watching.running_bytes(self._spec, worker)) or self._draining.reason
        if self._draining.takes_too_long:
            self._draining.give_up()
        elif outgrown and self._worker is worker:
            await self._replace(worker, outgrown)

    async def _replace(self, worker: WorkerProcess, outgrown: str) -> None:
        if worker.num_running:
            if not self._draining.reason and not self._draining.is_resting:
                log.warning("the worker of %s takes no more requests, and is replaced: %s", self._spec.name, outgrown)
                self._draining.begin(outgrown)
            return
        self._num_outgrown += 1
        self._duties.replaced()
        # Who comes while it ends waits: until then its memory is not there to be judged.
        self._draining.begin(outgrown)
        self._guard.note(f"the worker is replaced: {outgrown}")
        log.warning("the worker of %s is replaced between two requests: %s", self._spec.name, outgrown)
        self._worker, self._leaving = None, worker
        await worker.stop()
        self._begin_loading()
        self._draining.end()

    def _state(self) -> State:
        if self._is_closed:
            return "closed"
        if self._worker is not None:
            return "ready" if self._worker.is_alive else "restarting"
        if self._loading is not None:
            return "restarting" if self._restarts.num_crashes else "loading"
        if self._is_out_of_memory:
            return "out of memory"
        has_failed = self._load_error is not None or self._restarts.has_failed(time.monotonic())
        return "failed" if has_failed else "unloaded"
