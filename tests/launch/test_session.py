"""An agent's process in the foreground, and the server beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pensieve.errors import UsageError
from pensieve.inference.server_client import RunningServer
from pensieve.launch.session import MAX_RESTARTS, ServerWatch, run_in_foreground


@pytest.mark.parametrize(
    ("script", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 15)", 143)]
)
def test_the_agents_exit_status_is_ours(script: str, status: int) -> None:
    """One that a signal ended has the shell's number for it."""
    assert run_in_foreground([sys.executable, "-c", script], os.environ) == status


def test_a_signal_that_only_we_got_is_passed_on() -> None:
    """A terminal that closes, or a system that asks us to stop."""
    wait = "import signal, sys; signal.signal(15, lambda *_: sys.exit(9)); print(flush=True); signal.pause()"
    outer = (
        "import os, sys; from pensieve.launch.session import run_in_foreground as run;"
        f"sys.exit(run([sys.executable, '-c', {wait!r}], os.environ))"
    )
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
    assert process.returncode == 9


def ended() -> RunningServer:
    """A server whose process has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return RunningServer("http://127.0.0.1:1", "m", process.pid)


def test_a_server_that_died_is_started_again_and_that_is_told() -> None:
    """Once here: the new one lives."""
    here, again = RunningServer("http://127.0.0.1:1", "m", os.getpid()), threading.Event()

    def start() -> RunningServer:
        again.set()
        return here

    with ServerWatch(ended(), start) as watch:
        assert again.wait(20)
    assert watch.notes == ["the server died while the agent ran, and was started again"]


def test_a_server_that_cannot_be_had_again_is_told_with_the_reason() -> None:
    """A model that has gone, for example; and one that dies each time is given up."""

    def fail() -> RunningServer:
        raise UsageError("no model")

    with ServerWatch(ended(), fail) as watch:
        watch.join(20)
    assert watch.notes == ["the server died and could not be started again: no model"]
    with ServerWatch(ended(), ended) as dying:
        dying.join(20)
    assert (len(dying.notes), "left so" in dying.notes[-1]) == (MAX_RESTARTS + 1, True)


def test_a_program_that_cannot_be_started_is_told_in_a_sentence(tmp_path: Path) -> None:
    """One for another machine, for example: a file that may be run and is no program."""
    broken = tmp_path / "claude"
    broken.write_bytes(b"\x7fELF nothing")
    broken.chmod(0o755)
    with pytest.raises(UsageError, match="cannot be started"):
        run_in_foreground([str(broken)], os.environ)
