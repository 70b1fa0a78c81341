"""The cages themselves: each takes memory away as the guard reads it, and gives it back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from cage import MEGABYTE, Cage, caged
from pensieve.devices.memory import MemoryReading, read_memory
from pensieve.devices.processes import within_limits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what they are made of")

WAITING = [sys.executable, "-c", "print(flush=True); input()"]


def inside(cage: Cage) -> subprocess.Popen[str]:
    """A process that waits in the cage."""
    command = cage.command(WAITING)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_limits_of_processes_shrink_as_a_balloon_would_grow() -> None:
    """The first process of a cage is the server: it keeps a little; and there is no other way out than the end."""
    with caged(1000 * MEGABYTE, "prlimit") as cage, inside(cage) as process:
        assert cage.pids == [process.pid]
        whole = within_limits(read_memory(), process.pid)
        cage.inflate(600)
        less = within_limits(read_memory(), process.pid)
        cage.inflate(2000)
        least = within_limits(read_memory(), process.pid)
        process.communicate()
        assert (whole.total_bytes, whole.limited_by) == (1000 * MEGABYTE, "RLIMIT_DATA")
        assert taken(whole, less) == pytest.approx(600 * MEGABYTE, abs=MEGABYTE)
        assert 0 < (least.available_bytes or 0) <= 64 * MEGABYTE
        assert cage.pids == []


def test_a_balloon_takes_the_memory_of_the_whole_machine() -> None:
    """Here only a little of it, since others need it, too."""
    before = read_memory()
    assert before.available_bytes is not None
    with caged(before.available_bytes - 200 * MEGABYTE, "balloon") as cage, inside(cage) as process:
        assert cage.pids == [process.pid]
        assert float(cage.settings["PENSIEVE_MEMORY_WARNING_GB"]) == pytest.approx(
            before.available_bytes / 8e9, rel=0.1
        )
        assert felt(lambda: cage.inflate(400), before) > 300 * MEGABYTE
        process.communicate()


def taken(before: MemoryReading, after: MemoryReading) -> int:
    """Bytes that were available before and are not after."""
    return (before.available_bytes or 0) - (after.available_bytes or 0)


def felt(take: Callable[[], object], before: MemoryReading) -> int:
    """How much less is available afterwards; other programs come and go, so it may be looked at a few times."""
    take()
    found = 0
    for _ in range(20):
        found = max(found, taken(before, read_memory()))
        time.sleep(0.02)
    return found
