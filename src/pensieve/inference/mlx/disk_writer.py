"""Writes files on a thread of its own and measures how fast the disk reads: bytes only, decides nothing.

A file appears whole or not at all, under its own name only when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

TEMPORARY_SUFFIX = ".part"
CHUNK_BYTES = 4 * 2**20


class Written(NamedTuple):
    """How one file went; `problem` is empty when it is there."""

    path: Path
    problem: str = ""


class Measured(NamedTuple):
    """Bytes that were read from a file, and how long it took."""

    num_bytes: int
    seconds: float


Outcome = Written | Measured


class DiskWriter:
    """One thread, one task at a time; outcomes are fetched by whoever gave the tasks."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], Outcome | None] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._is_free = threading.Event()
        self._is_free.set()
        self._thread: threading.Thread | None = None

    @property
    def is_free(self) -> bool:
        """Whether the last task has ended."""
        return self._is_free.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether the last task has ended, at most so much later."""
        return self._is_free.wait(seconds)

    def write(self, path: Path, pieces: Sequence[bytes | memoryview]) -> None:
        """Begin to write a file; only when free."""
        self._begin(lambda: _write(path, pieces))

    def measure(self, path: Path, max_bytes: int) -> None:
        """Begin to read a file only to learn how fast that goes; only when free."""
        self._begin(lambda: _measure(path, max_bytes))

    def outcomes(self) -> list[Outcome]:
        """What has ended since the last call."""
        found: list[Outcome] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._outcomes.get_nowait())
        return found

    def close(self) -> None:
        """Finish the task under way and end the thread."""
        if self._thread:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None

    def _begin(self, task: Callable[[], Outcome | None]) -> None:
        assert self.is_free, "one task at a time"
        self._is_free.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prefix-cache-disk", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def _run(self) -> None:
        while task := self._tasks.get():
            try:
                outcome = task()
            except MemoryError:
                outcome = None  # nothing was written, and the next task may find room
            if outcome is not None:
                self._outcomes.put(outcome)
            del task, outcome
            self._is_free.set()


def _write(path: Path, pieces: Sequence[bytes | memoryview]) -> Written:
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with _create(temporary) as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            temporary.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return Written(path, problem.strerror or str(problem))
    return Written(path)


def _create(path: Path) -> BinaryIO:
    """A new file for its owner alone, locked for as long as it is written, which tells it from litter."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return os.fdopen(descriptor, "wb")


def _measure(path: Path, max_bytes: int) -> Measured | None:
    buffer = bytearray(CHUNK_BYTES)
    total = 0
    started = time.perf_counter()
    try:
        with path.open("rb", buffering=0) as file:
            while total < max_bytes and (count := file.readinto(buffer)):
                total += count
    except OSError:
        return None
    return Measured(total, time.perf_counter() - started) if total else None
