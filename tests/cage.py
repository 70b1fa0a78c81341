"""Takes memory away for real, from a server and its worker, in the gentlest way that works here.

A cgroup folder with a limit, and a balloon inside it; else, where no folder can be made, limits of the processes
themselves (`prlimit`), which shrink instead of a balloon that grows; else, as on a Mac, a balloon that takes the memory
of the whole machine. Each says which it is. `SAFETY_CAGE` chooses one by name.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from pensieve.devices.memory import read_memory
from pensieve.devices.processes import read_data_bytes

CGROUPS = Path("/sys/fs/cgroup")
MEGABYTE = 10**6
SERVER_MEGABYTES = 64
"""What a server whose processes are limited may always take beyond what it has."""

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


LIMIT = """
import ctypes, os, resource, sys
kill_with_parent, by_force = 1, 9
ctypes.CDLL(None).prctl(kill_with_parent, by_force)
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]), int(sys.argv[3])))
with open(sys.argv[1], "a") as processes:
    processes.write(f"{os.getpid()}\\n")
os.execv(sys.argv[4], sys.argv[4:])
"""
"""Limits itself and says who it is, then becomes the command."""

NOTE = """
import os, sys
with open(sys.argv[1], "a") as processes:
    processes.write(f"{os.getpid()}\\n")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Says who it is, then becomes the command."""


class Cage(Protocol):
    """Memory that is taken away from those inside."""

    settings: dict[str, str]
    """Variables of the environment that servers inside need, so that levels begin where the limit says."""
    total_bytes: int
    """What those inside take for all the memory there is."""

    def limit(self, num_bytes: int) -> bool:
        """Set the limit; False where that is not possible now."""
        ...

    @property
    def private_bytes(self) -> int:
        """What those inside and the balloon hold, without pages of files, which the kernel can take back."""
        ...

    @property
    def pids(self) -> list[int]:
        """All processes inside."""
        ...

    def command(self, words: Sequence[str]) -> list[str]:
        """The command, as it is started inside."""
        ...

    def inflate(self, num_megabytes: int) -> bool:
        """Let a balloon hold so much; False if it could not."""
        ...

    def clear(self) -> None:
        """End what is inside."""
        ...


class Names(NamedTuple):
    """The files of one version of cgroups."""

    limit: str
    usage: str


V1 = Names("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = Names("memory.max", "memory.current")


class Folder:
    """A cgroup folder, with its limit."""

    def __init__(self, folder: Path, names: Names, limit_bytes: int) -> None:
        self.settings: dict[str, str] = {}
        self.total_bytes = limit_bytes
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
        return told(self._balloons[-1], num_megabytes)

    def clear(self) -> None:
        """End what is inside, and remove the folder."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for balloon in self._balloons:
            balloon.communicate()
        give_up = time.monotonic() + 10
        while not self._is_removed():
            assert time.monotonic() < give_up, f"{self._folder} is still in use by {self.pids}"
            time.sleep(0.01)

    def _is_removed(self) -> bool:
        """Busy, although nobody is listed any more, while processes that ended are being cleared away."""
        try:
            self._folder.rmdir()
        except OSError:
            return False
        return True


class Limits:
    """Limits of the processes themselves: the more a balloon would hold, the less they may take.

    The server keeps a little to live on, as the kernel takes workers first.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.settings: dict[str, str] = {}
        self.total_bytes = self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._noted = Noted()

    def limit(self, num_bytes: int) -> bool:
        """See `Cage.limit`."""
        self._limit_bytes = num_bytes
        self._apply()
        return True

    @property
    def private_bytes(self) -> int:
        """See `Cage.private_bytes`: of one worker, which the limit is meant for."""
        workers = [pid for pid in self.pids if pid not in self._noted.roots]
        return self._held_bytes + sum(read_data_bytes(pid) for pid in workers[:1])

    @property
    def pids(self) -> list[int]:
        """See `Cage.pids`."""
        return self._noted.pids

    def command(self, words: Sequence[str]) -> list[str]:
        """See `Cage.command`."""
        limits = (str(self._limit_bytes), str(self.total_bytes))
        return [sys.executable, "-c", LIMIT, str(self._noted.path), *limits, *words]

    def inflate(self, num_megabytes: int) -> bool:
        """See `Cage.inflate`."""
        self._held_bytes = num_megabytes * MEGABYTE
        self._apply()
        return True

    def clear(self) -> None:
        """See `Cage.clear`."""
        self._noted.clear()

    def _apply(self) -> None:
        wanted = max(0, self._limit_bytes - self._held_bytes)
        for pid in self.pids:
            floor = read_data_bytes(pid) + SERVER_MEGABYTES * MEGABYTE if pid in self._noted.roots else 0
            soft = min(self.total_bytes, max(wanted, floor))
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (soft, self.total_bytes))


class Machine:
    """The memory of the whole machine: a balloon leaves no more than the limit. Others feel it, too."""

    def __init__(self, limit_bytes: int) -> None:
        reading = read_memory()
        assert reading.available_bytes is not None
        assert reading.total_bytes is not None
        self.total_bytes = reading.total_bytes
        shares = {"WARNING": 8, "CRITICAL": 16, "EMERGENCY": 32}
        self.settings = {f"PENSIEVE_MEMORY_{name}_GB": f"{limit_bytes / 1e9 / part}" for name, part in shares.items()}
        self._available_bytes = reading.available_bytes
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._noted = Noted()
        self._balloon = subprocess.Popen(
            [sys.executable, "-c", BALLOON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.inflate(0)

    def limit(self, num_bytes: int) -> bool:
        """See `Cage.limit`."""
        self._limit_bytes = num_bytes
        return self.inflate(self._held_bytes // MEGABYTE)

    @property
    def private_bytes(self) -> int:
        """See `Cage.private_bytes`."""
        return max(0, self._limit_bytes - (read_memory().available_bytes or 0))

    @property
    def pids(self) -> list[int]:
        """See `Cage.pids`."""
        return self._noted.pids

    def command(self, words: Sequence[str]) -> list[str]:
        """See `Cage.command`."""
        return [sys.executable, "-c", NOTE, str(self._noted.path), *words]

    def inflate(self, num_megabytes: int) -> bool:
        """See `Cage.inflate`."""
        self._held_bytes = num_megabytes * MEGABYTE
        beyond = max(0, self._available_bytes - self._limit_bytes) // MEGABYTE
        return told(self._balloon, beyond + num_megabytes)

    def clear(self) -> None:
        """See `Cage.clear`."""
        self._balloon.communicate()
        self._noted.clear()


class Noted:
    """Processes that wrote their numbers into a file when they began, and their children."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "processes"

    @property
    def roots(self) -> list[int]:
        """Those that wrote."""
        return [int(line) for line in self.path.read_text().split()] if self.path.exists() else []

    @property
    def pids(self) -> list[int]:
        """Those that live."""
        living = [pid for pid in self.roots if is_alive(pid)]
        return living + [child for pid in living for child in children_of(pid)]

    def clear(self) -> None:
        """End them."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._folder.cleanup()


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """The processes that it started and that run."""
    with contextlib.suppress(OSError):
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in found if is_alive(child)]
    return []


def told(balloon: subprocess.Popen[str], num_megabytes: int) -> bool:
    """Tell a balloon how much to hold; False if the kernel took it away."""
    assert balloon.stdin is not None
    assert balloon.stdout is not None
    try:
        balloon.stdin.write(f"{num_megabytes}\n")
        balloon.stdin.flush()
    except BrokenPipeError:
        return False
    return bool(balloon.stdout.readline())


@contextmanager
def caged(limit_bytes: int, kind: str = os.environ.get("SAFETY_CAGE", "")) -> Iterator[Cage]:
    """The gentlest cage with that limit that works here, or the one of that name."""
    cage = next(made for name, make in CAGES.items() if kind in ("", name) and (made := make(limit_bytes)))
    print(f"{WORDS[type(cage).__name__]}, limit {limit_bytes / 1e9:.2f} GB")
    try:
        yield cage
    finally:
        cage.clear()


def _folder(limit_bytes: int) -> Cage | None:
    for mount, names in ((CGROUPS / "memory", V1), (CGROUPS, V2)):
        folder = mount / f"pensieve-test-{os.getpid()}-{next(_numbers)}"
        try:
            folder.mkdir()
        except OSError:
            continue
        cage = Folder(folder, names, limit_bytes)
        if (folder / names.usage).exists() and cage.limit(limit_bytes):
            return cage
        folder.rmdir()
    return None


def _limits(limit_bytes: int) -> Cage | None:
    return Limits(limit_bytes) if sys.platform == "linux" else None


CAGES: dict[str, Callable[[int], Cage | None]] = {"cgroup": _folder, "prlimit": _limits, "balloon": Machine}
WORDS = {
    "Folder": "memory is taken away in a cgroup folder",
    "Limits": "memory is taken away by prlimit, from server and worker",
    "Machine": "memory is taken away by a balloon, from the whole machine",
}
