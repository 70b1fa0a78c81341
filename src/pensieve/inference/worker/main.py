"""The worker process: hosts one backend and serves it to the parent over the inherited socket.

Lives only as long as its parent: when the socket closes, for whatever reason, it exits at once. It is a composition
root: the one place that knows which engine serves which model format.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import uvloop

from pensieve.config.settings import Settings
from pensieve.devices import heap
from pensieve.errors import InvalidRequest, LoadFailed, Overloaded
from pensieve.generation import GenerationRequest
from pensieve.inference.backend import Backend, CacheFigures, Caching, Embeds, Relievable
from pensieve.inference.failure import converted
from pensieve.inference.worker import frames
from pensieve.models.spec import ModelSpec

QUIET_SECONDS = 1.0
"""Nothing ran for so long: then free memory goes back to the system."""

OOM_SCORE = "500"
"""Of 1,000: the kernel takes the process with the highest sum of this and the share of memory that it holds."""


def open_backend(spec: ModelSpec, settings: Settings, state_folder: Path | None = None) -> Backend:
    """Load the model with the engine for its format. Blocks; raises `LoadFailed`."""
    if spec.format == "mlx":
        return _open_mlx(spec, settings, state_folder)
    if spec.format == "script":
        from pensieve.inference.scripted import ScriptedBackend, load_script  # noqa: PLC0415 - one engine a process

        return ScriptedBackend(load_script(Path(spec.location)))
    from pensieve.inference.llamacpp.backend import LlamaCppBackend  # noqa: PLC0415 - one engine a process

    return LlamaCppBackend(spec, settings)


def _open_mlx(spec: ModelSpec, settings: Settings, state_folder: Path | None) -> Backend:
    try:
        from pensieve.inference.mlx.backend import MlxBackend  # noqa: PLC0415 - one engine a process
    except ImportError as error:
        raise LoadFailed(
            "this installation is without MLX: `make setup` in your clone of Pensieve adds it", spec.name
        ) from error
    except ValueError as error:  # mlx-lm sets the limit of open files to 4,096 when it is imported
        raise LoadFailed("this process may open too few files: raise the hard limit to 4,096", spec.name) from error
    return MlxBackend(spec, settings, state_folder)


class Worker(asyncio.Protocol):
    """Frames in, frames out; one task per stream."""

    def __init__(self) -> None:
        self._decoder = frames.ToWorkerDecoder()
        self._outbox: list[bytes] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._backend: Backend | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._num_ended = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The parent is gone, so nobody needs this process; engine threads must not keep it alive."""
        del exc
        os._exit(0)

    def data_received(self, data: bytes) -> None:
        """Take what the parent sent."""
        for frame in self._decoder.feed(data):
            self._take(frame)

    def _take(self, frame: frames.ToWorker) -> None:
        match frame:
            case frames.Load(spec, settings, state_folder):
                folder = Path(state_folder) if state_folder else None
                self._start(frames.LOAD_STREAM, self._load(spec, settings, folder))
            case frames.Generate(stream, request):
                self._start(stream, self._generate(stream, request))
            case frames.Count(stream, request):
                self._start(stream, self._count(stream, request))
            case frames.Embed(stream, texts):
                self._start(stream, self._embed(stream, texts))
            case frames.Cancel(stream):
                if task := self._tasks.get(stream):
                    task.cancel()
            case frames.Ping():
                backend: object = self._backend
                held = backend.cached if isinstance(backend, Caching) else CacheFigures()
                self._send(frames.Pong(held.num_bytes, held.evicted_bytes))
            case frames.Relieve(cache_share, is_frugal):
                self._relieve(cache_share, is_frugal=is_frugal)
            case frames.Stop():
                self._start(-1, self._stop())

    def _start(self, stream: int, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[stream] = task
        task.add_done_callback(lambda done: self._ended(stream, done))

    def _ended(self, stream: int, task: asyncio.Task[None]) -> None:
        """The last line of defence: whatever goes wrong in one stream is that stream's error."""
        self._tasks.pop(stream, None)
        self._num_ended += 1
        asyncio.get_running_loop().call_later(QUIET_SECONDS, self._tidy, self._num_ended)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._send(frames.failed(stream, converted(error)))

    async def _load(self, spec: ModelSpec, settings: Settings, state_folder: Path | None) -> None:
        backend = self._backend = await asyncio.to_thread(open_backend, spec, settings, state_folder)
        growth_bytes = backend.growth_bytes if isinstance(backend, Relievable) else 0
        self._send(frames.Ready(await backend.limits(), growth_bytes))

    def _relieve(self, cache_share: float, *, is_frugal: bool) -> None:
        backend: object = self._backend
        if isinstance(backend, Relievable):
            backend.relieve(cache_share=cache_share, is_frugal=is_frugal)
        if cache_share < 1.0:
            gc.collect()
            heap.trim()

    def _tidy(self, num_ended: int) -> None:
        """Nothing has begun or ended for a while: what the last request left goes back to the system."""
        if not self._tasks and num_ended == self._num_ended:
            heap.trim()

    async def _generate(self, stream: int, request: GenerationRequest) -> None:
        assert self._backend is not None
        try:
            async with asyncio.timeout(request.deadline_seconds):
                async with aclosing(self._backend.generate(request)) as events:
                    async for event in events:
                        self._send(frames.Events(stream, (event,)))
        except TimeoutError as error:
            raise Overloaded(f"no answer within {request.deadline_seconds} s") from error

    async def _count(self, stream: int, request: GenerationRequest) -> None:
        assert self._backend is not None
        self._send(frames.Counted(stream, await self._backend.count_tokens(request)))

    async def _embed(self, stream: int, texts: tuple[str, ...]) -> None:
        backend: object = self._backend
        if not isinstance(backend, Embeds):
            problem = "this model makes no embeddings here: take one in a GGUF file (`pensieve models list`)"
            raise InvalidRequest(problem, path="model")
        self._send(frames.Embedded(stream, await backend.embed(texts)))

    async def _stop(self) -> None:
        if self._backend is not None:
            await self._backend.aclose()
        os._exit(0)

    def _send(self, frame: frames.FromWorker) -> None:
        """Queue a frame; all frames of one turn of the loop go out in one write."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(frames.encode(frame))

    def _flush(self) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(self._outbox))
        self._outbox.clear()


def die_with_parent() -> None:
    """Linux: be killed when the parent dies, also while loading holds the interpreter and the socket goes unread."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def die_first() -> None:
    """Linux: when memory runs out faster than anybody can react, this process goes, and not the server."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, "ascii")


async def run(connection: socket.socket) -> None:
    """Serve until the parent goes or says stop; both end the process."""
    loop = asyncio.get_running_loop()
    await loop.create_connection(Worker, sock=connection)
    await asyncio.Event().wait()


def main() -> None:
    """Entry point: the socket's file descriptor is the only argument."""
    die_with_parent()
    heap.keep_large_blocks_apart()
    uvloop.run(run(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
