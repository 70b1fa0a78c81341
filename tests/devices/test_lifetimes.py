"""Which process a number means."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from pensieve.devices.lifetimes import lifetime_of

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_process_goes_on_until_it_ends() -> None:
    """Also one that has ended and that nobody waited for has ended."""
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as process:
        lifetime = lifetime_of(process.pid)
        assert lifetime is not None
        went_on = lifetime.goes_on
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert (went_on, lifetime.goes_on) == (True, False)
    assert lifetime_of(process.pid) is None


def test_an_id_that_was_used_again_is_another_process() -> None:
    """The same number, begun at another time."""
    here = lifetime_of(os.getpid())
    assert here is not None
    assert here == lifetime_of(os.getpid())
    assert not msgspec.structs.replace(here, started="0").goes_on


def test_a_name_with_spaces_and_parentheses_is_passed_over(tmp_path: Path) -> None:
    """Anybody may call a process so."""
    (tmp_path / "7").mkdir()
    ticks = " ".join(str(number) for number in range(4, 60))
    (tmp_path / "7" / "stat").write_text(f"7 (a ) Z (b) S {ticks}\n")
    found = lifetime_of(7, tmp_path)
    assert found is not None
    assert found.started == "22"
