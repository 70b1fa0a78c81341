"""One life of one worker process, seen from the parent: started, talked to by streams, ended. No restarts here."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

from pensieve.config.settings import Settings
from pensieve.errors import LoadFailed, PensieveError, WorkerCrashed, rebuild
from pensieve.inference.backend import CacheFigures, Limits
from pensieve.inference.worker import frames
from pensieve.models.spec import ModelSpec

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""How long a worker gets to end in order before it is killed: a step of its engine, then what it keeps on disk."""

UNHEARD_PINGS = 3

SPINS = {"GOMP_SPINCOUNT": "300"}
"""How often an engine's threads look for each other before they sleep (libgomp; by default they hardly ever sleep).

Beside another busy program threads that spin keep a processor from those that work: decision 0034."""

LAST_WORDS_BYTES = 4096
"""How much of the end of a worker's standard error is kept, to explain a crash in the log."""

UNTOLD = b"llg error"
"""What llguidance prints behind it, inside llama.cpp, may hold an answer's own words: nothing of that is kept."""


class _Link(asyncio.Protocol):
    """Frames to and from the worker; each stream has a queue, `None` in it means the worker is gone."""

    def __init__(self) -> None:
        self._decoder = frames.FromWorkerDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self.queues: dict[int, asyncio.Queue[frames.FromWorker | None]] = {}
        self.is_lost = False
        self.heard_at_seconds = time.monotonic()
        self.num_pings = 0
        """Since it was heard last."""
        self.cached = CacheFigures()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at_seconds = time.monotonic()
        self.num_pings = 0
        for frame in self._decoder.feed(data):
            if isinstance(frame, frames.Pong):
                self.cached = CacheFigures(frame.cache_bytes, frame.evicted_bytes)
            elif queue := self.queues.get(frame.stream):
                queue.put_nowait(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.is_lost = True
        for queue in self.queues.values():
            queue.put_nowait(None)

    def send(self, frame: frames.ToWorker) -> None:
        assert self._transport is not None
        if not self.is_lost:
            self._transport.write(frames.encode(frame))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _spawn(connection: socket.socket) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "pensieve.inference.worker.main", str(connection.fileno())),
        pass_fds=(connection.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(os.environ),
        start_new_session=True,  # Ctrl-C in the terminal is for the parent alone
    )


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """A worker's: ours, with our own way of waiting unless the user chose one. uvloop takes dictionaries only."""
    return dict(ours) if "OMP_WAIT_POLICY" in ours else SPINS | dict(ours)


class WorkerProcess:
    """A running worker. Make one with `start`."""

    def __init__(self, spec: ModelSpec, process: asyncio.subprocess.Process, link: _Link) -> None:
        self.spec = spec
        self.limits = Limits(spec.name, 0, 0, is_planned=True)
        self._process = process
        self._link = link
        self._streams = itertools.count(frames.LOAD_STREAM + 1)
        self._last_words = b""
        self._ended_because = ""
        self.growth_bytes = 0
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, spec: ModelSpec, settings: Settings, state_folder: Path | None = None) -> WorkerProcess:
        """Start a process and load the model in it. Raises `LoadFailed`."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await _spawn(theirs)
            _, link = await asyncio.get_running_loop().create_connection(_Link, sock=ours)
        except OSError as error:
            ours.close()
            raise LoadFailed(f"no worker process could be started ({error.strerror})", spec.name) from error
        worker = cls(spec, process, link)
        async with AsyncExitStack() as undone:
            undone.push_async_callback(worker._give_up)
            worker.limits = await worker._load(settings, state_folder)
            undone.pop_all()
        return worker

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can still take requests."""
        return not self._link.is_lost and self._process.returncode is None

    @property
    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        return self._last_words.decode(errors="replace").strip()

    def new_stream(self) -> int:
        """A number no other stream of this worker has."""
        return next(self._streams)

    async def ask(self, stream: int, question: frames.ToWorker) -> AsyncGenerator[frames.FromWorker, None]:
        """Send `question`, give the frames that answer it; whoever closes this early cancels the stream.

        Raises the worker's error for the stream, or `WorkerCrashed`.
        """
        queue: asyncio.Queue[frames.FromWorker | None] = asyncio.Queue()
        self._link.queues[stream] = queue
        is_over = False
        try:
            self._link.send(question)
            while not self._link.is_lost or not queue.empty():
                frame = await queue.get()
                if frame is None:
                    break
                if isinstance(frame, frames.Failed):
                    is_over = True
                    raise rebuild(frame.code, frame.facts)
                yield frame
            raise WorkerCrashed(model=self.spec.name, exit_status=await self.exit_status())
        finally:
            del self._link.queues[stream]
            if not is_over:
                # Harmless for a stream that has ended: the worker does not know it any more.
                self._link.send(frames.Cancel(stream))

    @property
    def cached(self) -> CacheFigures:
        """What its cache of prompts held at the last sign of life, and had evicted."""
        return self._link.cached

    @property
    def num_running(self) -> int:
        """Streams that are under way."""
        return len(self._link.queues)

    @property
    def silent_seconds(self) -> float:
        """For how long it has left several pings unanswered; 0.0 while it has not."""
        # One that was sent a moment ago says nothing: this process may itself have slept until then.
        is_waited_for = self._link.num_pings >= UNHEARD_PINGS
        return time.monotonic() - self._link.heard_at_seconds if is_waited_for else 0.0

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._link.num_pings += 1
        self._link.send(frames.Ping())

    def relieve(self, *, cache_share: float, is_frugal: bool) -> None:
        """Say how much of their budget caches may fill, and whether to take small steps."""
        self._link.send(frames.Relieve(cache_share, is_frugal))

    def end_streams(self, error: PensieveError) -> None:
        """End all that runs with that error; the worker hears nothing of it."""
        for stream, queue in self._link.queues.items():
            queue.put_nowait(frames.failed(stream, error))

    async def stop(self, within_seconds: float = STOP_SECONDS) -> None:
        """End it in order, by force after so many seconds."""
        self._link.send(frames.Stop())
        try:
            async with asyncio.timeout(within_seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        await self.kill()

    async def kill(self, because: str = "") -> None:
        """End it by force, and say why to those who wait for it; safe to call on a dead one."""
        self._ended_because = self._ended_because or because
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._link.close()
        await self._listening

    async def _give_up(self) -> None:
        await self.kill()
        if self.last_words:
            log.warning("last words of the worker that did not load %s:\n%s", self.spec.name, self.last_words)

    async def _load(self, settings: Settings, state_folder: Path | None) -> Limits:
        load = frames.Load(self.spec, settings, str(state_folder or ""))
        try:
            async with asyncio.timeout(settings.worker.load_timeout_seconds):
                async for frame in self.ask(frames.LOAD_STREAM, load):
                    assert isinstance(frame, frames.Ready)
                    self.growth_bytes = frame.growth_bytes
                    return frame.limits
        except WorkerCrashed as error:
            reason = f"its worker ended while loading ({error.exit_status})"
            raise LoadFailed(reason, self.spec.name) from error
        except LoadFailed:
            raise
        except PensieveError as error:
            raise LoadFailed(str(error), self.spec.name) from error
        except TimeoutError as error:
            reason = f"it took longer than worker.load_timeout_seconds ({settings.worker.load_timeout_seconds:g})"
            raise LoadFailed(reason, self.spec.name) from error
        raise AssertionError("a stream ends with a frame or an error")

    async def exit_status(self) -> str:
        """How it ended, in words."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            return "it closed its connection"
        if self._ended_because:
            return self._ended_because
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while words := await self._process.stderr.read(LAST_WORDS_BYTES):
            told, mark, _ = (self._last_words + words).partition(UNTOLD)
            self._last_words = (told + mark)[-LAST_WORDS_BYTES:]
