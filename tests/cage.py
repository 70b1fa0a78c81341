"""Takes memory away for real: a cgroup folder with a limit, for a server, its worker and a balloon beside them.

Nothing outside the folder is short of memory. Where no such folder can be made, the tests that need one say so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
MEGABYTE = 10**6
_numbers = itertools.count(1)

BALLOON = """
import mmap, sys
held = []
for line in sys.stdin:
    wanted = int(line)
    while len(held) > wanted:
        held.pop().close()
    while len(held) < wanted:
        held.append(mmap.mmap(-1, 10**6, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].write(b"x" * 10**6)
    print(wanted, flush=True)
"""
"""Holds as many megabytes as it was last told to; ends with its input."""


ENTER = """
import ctypes, os, sys
kill_with_parent, by_force = 1, 9
ctypes.CDLL(None).prctl(kill_with_parent, by_force)
with open(sys.argv[1], "w") as processes:
    processes.write(str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Goes into the folder and becomes the command there; a test run that is killed takes it along."""


class Names(NamedTuple):
    """The files of one version of cgroups."""

    limit: str
    usage: str


V1 = Names("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = Names("memory.max", "memory.current")


class Cage:
    """One folder, with its limit."""

    def __init__(self, folder: Path, names: Names) -> None:
        self._folder = folder
        self._names = names
        self._balloons: list[subprocess.Popen[str]] = []

    def limit(self, num_bytes: int) -> bool:
        """Set the limit; False where more is used than could be reclaimed."""
        try:
            (self._folder / self._names.limit).write_text(str(num_bytes))
        except OSError:
            return False
        return True

    @property
    def private_bytes(self) -> int:
        """What is charged to the folder, without pages of files, which the kernel can take back."""
        used = int((self._folder / self._names.usage).read_text())
        lines = (self._folder / "memory.stat").read_text().splitlines()
        stat = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
        prefix = "total_" if self._names == V1 else ""
        return used - stat[f"{prefix}active_file"] - stat[f"{prefix}inactive_file"]

    @property
    def pids(self) -> list[int]:
        """All processes inside."""
        return [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()]

    def command(self, words: Sequence[str]) -> list[str]:
        """The command, as it is started inside."""
        return [sys.executable, "-c", ENTER, str(self._folder / "cgroup.procs"), *words]

    def inflate(self, num_megabytes: int) -> bool:
        """Let a balloon hold so much; False if the kernel took it away."""
        if not self._balloons or self._balloons[-1].poll() is not None:
            command = self.command([sys.executable, "-c", BALLOON])
            self._balloons.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        balloon = self._balloons[-1]
        assert balloon.stdin is not None
        assert balloon.stdout is not None
        try:
            balloon.stdin.write(f"{num_megabytes}\n")
            balloon.stdin.flush()
        except BrokenPipeError:
            return False
        return bool(balloon.stdout.readline())

    def clear(self) -> None:
        """End what is inside, and remove the folder."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for balloon in self._balloons:
            balloon.communicate()
        give_up = time.monotonic() + 10
        while self.pids and time.monotonic() < give_up:
            time.sleep(0.01)
        self._folder.rmdir()


@contextmanager
def caged(limit_bytes: int) -> Iterator[Cage | None]:
    """A folder with that limit; None where none can be made."""
    cage = _made(limit_bytes)
    try:
        yield cage
    finally:
        if cage is not None:
            cage.clear()


def _made(limit_bytes: int) -> Cage | None:
    for mount, names in ((CGROUPS / "memory", V1), (CGROUPS, V2)):
        folder = mount / f"pensieve-test-{os.getpid()}-{next(_numbers)}"
        try:
            folder.mkdir()
        except OSError:
            continue
        cage = Cage(folder, names)
        if (folder / names.usage).exists() and cage.limit(limit_bytes):
            print(f"memory is taken away in a cgroup folder, limit {limit_bytes / 1e9:.2f} GB")
            return cage
        folder.rmdir()
    return None
