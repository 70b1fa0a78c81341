"""The routes for whoever keeps the server: how it is, its figures, and leaving a state of failure by command."""

from __future__ import annotations

import asyncio
import os
import time

from starlette.types import Receive, Scope, Send

from pensieve.config.settings import MemorySettings
from pensieve.devices.cuda import read_devices
from pensieve.devices.processes import read_process
from pensieve.errors import PensieveError
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.supervision import MemoryStatus, Supervised
from pensieve.messages import Json
from pensieve.server.endpoints import Endpoint
from pensieve.server.envelope import send_json
from pensieve.server.log_thread import num_dropped_lines
from pensieve.server.metrics import CONTENT_TYPE, log_lines, memory_lines, request_lines, worker_lines

LIMITS_SECONDS = 1.0
"""How long /health waits for a backend to say what it can take."""

UNWELL = frozenset({"failed", "out of memory"})


class Health(Endpoint):
    """`GET /health`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say how the server is; open to all, so that nothing here names a path or a prompt."""
        del scope, receive
        supervised, is_stopping = self.router.supervised, self.ledger.is_stopping
        memory = _memory(supervised)
        is_accepting = memory.is_accepting and not is_stopping
        content: dict[str, Json] = {
            "status": _status(self.router.state, is_accepting=memory.is_accepting, is_stopping=is_stopping),
            "memory": {
                "status": memory.level,
                "available_gb": _gigabytes(memory.reading.available_bytes),
                "accepting_requests": is_accepting,
            },
            "version": self.version,
            "model": await self._model(),
            "uptime_seconds": int(time.monotonic() - self.ledger.started_seconds),
            "requests": self.ledger.counts(),
        }
        if supervised is not None:
            content |= _supervision(supervised)
        await send_json(send, content)

    async def _model(self) -> Json:
        facts: dict[str, Json] = {"name": self.router.specs[0].name, "state": self.router.state}
        try:
            async with asyncio.timeout(LIMITS_SECONDS):
                limits = await self.router.limits()
                return facts | {"context_tokens": limits.context_tokens, "engine": limits.engine}
        except (PensieveError, TimeoutError):
            return facts


class Metrics(Endpoint):
    """`GET /metrics`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the figures as Prometheus reads them."""
        del scope, receive
        supervised = self.router.supervised
        cards = await asyncio.to_thread(read_devices)
        lines = [*memory_lines(_memory(supervised), read_process(os.getpid()), cards)]
        if supervised is not None:
            lines += worker_lines(supervised.status)
        lines += [*request_lines(self.ledger.counts()), *self.ledger.tally.lines()]
        lines += log_lines(num_dropped_lines())
        body = "".join(f"{line}\n" for line in lines).encode()
        headers = [(b"content-type", CONTENT_TYPE), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Reset(Endpoint):
    """`POST /reset`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forget crashes and suspicions, so that a worker that failed is started for the next request."""
        del scope, receive
        supervised = self.router.supervised
        if supervised is not None:
            supervised.reset()
        await send_json(send, {"state": self.router.state})


def _memory(supervised: Supervised | None) -> MemoryStatus:
    """Memory as the worker's guard knows it, or, without one, as it is now under the default settings."""
    if supervised is not None:
        return supervised.memory
    guard = MemoryGuard(MemorySettings())
    guard.look()
    return guard.status


def _status(state: str, *, is_accepting: bool, is_stopping: bool) -> str:
    if is_stopping:
        return "stopping"
    return "healthy" if is_accepting and state not in UNWELL else "degraded"


def _supervision(supervised: Supervised) -> dict[str, Json]:
    """Figures of the worker, and what happened last."""
    worker, memory = supervised.status, supervised.memory
    event = worker.last_event
    return {
        "worker": {
            "memory_gb": None if worker.memory is None else round(worker.memory.resident_bytes / 1e9, 3),
            "cache_gb": round(worker.cached.num_bytes / 1e9, 3),
            "loads": worker.num_loads,
            "crashes": worker.num_crashes,
            "hangs": worker.num_hangs,
            "unloads": worker.num_unloads,
            "outgrown": worker.num_outgrown,
        },
        "lowest_available_gb": _gigabytes(memory.lowest_available_bytes),
        "refused_for_memory": memory.num_refused,
        "last_event": event and {"what": event.what, "seconds_ago": int(time.monotonic() - event.at_seconds)},
    }


def _gigabytes(num_bytes: int | None) -> float | None:
    """With two decimals; None where nobody knows."""
    return None if num_bytes is None else round(num_bytes / 1e9, 2)
