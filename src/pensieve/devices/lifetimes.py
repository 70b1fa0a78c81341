"""Which process a number means: an id together with when it began, because ids are used again. Decides nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from pensieve.devices.memory import read_kernel_file

PS_SECONDS = 5.0
_STATE, _START_TICKS = 0, 19
"""Places in /proc/PID/stat, counted after the name."""


class Lifetime(msgspec.Struct, frozen=True):
    """One process from its beginning to its end; `started` is the system's own word for when it began."""

    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    started: str

    @property
    def goes_on(self) -> bool:
        """Whether the process is still there; one that has ended and was not waited for is not."""
        return lifetime_of(self.pid) == self

    @property
    def is_over(self) -> bool:
        """Whether the process is surely gone: a system without a free descriptor tells nothing about any process."""
        now = lifetime_of(self.pid)
        if now is not None:
            return now != self
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            return False
        return False


def lifetime_of(pid: int, root: Path = Path("/proc")) -> Lifetime | None:
    """The process that has this id now, or None. On a Mac it takes milliseconds."""
    started = _started_by_ps(pid) if sys.platform == "darwin" else _started_by_kernel(pid, root)
    return Lifetime(pid, started) if started else None


def _started_by_kernel(pid: int, root: Path) -> str:
    # The name stands in parentheses and may have any character in it.
    fields = read_kernel_file(root / str(pid) / "stat").decode("ascii", "replace").rpartition(")")[2].split()
    return "" if len(fields) <= _START_TICKS or fields[_STATE] in {"Z", "X"} else fields[_START_TICKS]


def _started_by_ps(pid: int) -> str:
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PS_SECONDS)  # noqa: S603 - no shell
    except (OSError, subprocess.TimeoutExpired):
        return ""
    state, _, started = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()
