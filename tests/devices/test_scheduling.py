"""The scheduler's hint, asked of the real kernel."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

ASK = "from pensieve.devices.scheduling import prefer_short_slices as ask; print(ask(), ask())"


@pytest.mark.skipif(sys.platform != "linux", reason="a hint for Linux")
def test_the_kernel_takes_the_hint_and_keeps_the_rest() -> None:
    """Twice is as good as once, and the process stays an ordinary one."""
    code = f"{ASK}; import os; print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.nice(0))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = str(platform.machine() in {"x86_64", "aarch64"})
    assert told.stdout.split() == [expected, expected, "True", str(os.nice(0))]
