"""The parent's side of a worker: a `Backend` that keeps one process alive for one model.

Started on first use, restarted with back-off after a crash; every request that was running then ends in one error.
Loading belongs to nobody: a client that goes away while the model loads does not stop the loading.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import msgspec

from pensieve.config.settings import Settings
from pensieve.errors import BackendFailure, LoadFailed
from pensieve.generation import Finished, GenerationEvent, GenerationRequest
from pensieve.inference.backend import Limits
from pensieve.inference.context import context_tokens
from pensieve.inference.worker import frames
from pensieve.inference.worker.process import WorkerProcess
from pensieve.inference.worker.restarts import Restarts
from pensieve.models.spec import ModelSpec

log = logging.getLogger(__name__)

State = Literal["unloaded", "loading", "ready", "restarting", "failed", "closed"]


class WorkerStatus(msgspec.Struct, frozen=True):
    """How the worker is; `pid` 0 while there is none."""

    state: State
    pid: int
    num_crashes: int


class WorkerBackend:
    """A `Backend` in a child process."""

    def __init__(self, spec: ModelSpec, settings: Settings, state_folder: Path | None = None) -> None:
        """`state_folder`: where the engine may keep what survives a restart of the worker."""
        self._state_folder = state_folder
        self._spec = spec
        self._settings = settings
        self._restarts = Restarts()
        self._worker: WorkerProcess | None = None
        self._loading: asyncio.Task[WorkerProcess] | None = None
        self._load_error: LoadFailed | None = None
        self._is_closed = False

    @property
    def status(self) -> WorkerStatus:
        """How the worker is now."""
        worker = self._worker
        pid = worker.pid if worker is not None and worker.is_alive else 0
        return WorkerStatus(self._state(), pid, self._restarts.num_crashes)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`. Raises `WorkerCrashed` too."""
        worker = await self._ready()
        stream = worker.new_stream()
        async with aclosing(worker.ask(stream, frames.Generate(stream, request))) as answer:
            async for frame in answer:
                assert isinstance(frame, frames.Events)
                for event in frame.events:
                    yield event
                    if isinstance(event, Finished):
                        self._restarts.answered()
                        return

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`."""
        worker = await self._ready()
        stream = worker.new_stream()
        async with aclosing(worker.ask(stream, frames.Count(stream, request))) as answer:
            async for frame in answer:
                assert isinstance(frame, frames.Counted)
                return frame.tokens
        raise AssertionError("a stream ends with a frame or an error")

    async def limits(self) -> Limits:
        """See `Backend.limits`; planned from the file's header while nothing is loaded."""
        if self._worker is not None:
            return self._worker.limits
        context = context_tokens(self._spec, self._settings.model)
        return Limits(self._spec.name, context, context, is_planned=True)

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        self._is_closed = True
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._worker is not None:
            await self._worker.stop()

    async def _ready(self) -> WorkerProcess:
        """The living worker, started if need be."""
        if self._is_closed:
            raise BackendFailure("the server is shutting down")
        if self._worker is not None and self._worker.is_alive:
            return self._worker
        if self._loading is None:
            self._loading = asyncio.create_task(self._start())
            self._loading.add_done_callback(self._loaded)
        loading = self._loading
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled():  # by `aclose`; a client that leaves cancels only its own waiting
                raise BackendFailure("the server is shutting down") from None
            raise

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
        log.warning("the worker of %s ended by itself. Its last words:\n%s", self._spec.name, worker.last_words)

    def _loaded(self, loading: asyncio.Task[WorkerProcess]) -> None:
        self._loading = None
        if loading.cancelled():
            return
        error = loading.exception()
        if error is None:
            self._worker, self._load_error = loading.result(), None
        elif isinstance(error, LoadFailed) and error is not self._load_error:
            self._load_error = error
            self._restarts.crashed(time.monotonic())
            log.error("%s", error)

    def _state(self) -> State:
        if self._is_closed:
            return "closed"
        if self._worker is not None:
            return "ready" if self._worker.is_alive else "restarting"
        if self._loading is not None:
            return "restarting" if self._restarts.num_crashes else "loading"
        return "failed" if self._load_error is not None else "unloaded"
