"""One agent in this terminal: its process in the foreground, and a server beside it that is kept up. Knows no agent."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from pensieve.devices.lifetimes import lifetime_of
from pensieve.errors import PensieveError, UsageError
from pensieve.inference.server_client import RunningServer

WATCH_SECONDS = 0.25
LEAVE_SECONDS = 1.0
"""A start that is under way when the agent ends is not waited for."""
MAX_RESTARTS = 3
FORWARDED = (signal.SIGTERM, signal.SIGHUP)


def run_in_foreground(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the program with this terminal as its own; its exit status, or 128 and the signal that ended it.

    Raises `UsageError` where it cannot be started.
    """
    try:
        started = subprocess.Popen(list(command), env=dict(environment))  # noqa: S603 - the user's own program
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be started ({error.strerror}): install it anew") from error
    with started as process, _signals_go_to(process):
        status = process.wait()
    return 128 - status if status < 0 else status


@contextmanager
def _signals_go_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave Ctrl-C to the program, which gets it from the terminal too; pass on what only we get."""

    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        if number in FORWARDED:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    # Functions, not SIG_IGN: what is ignored stays so in programs that are started.
    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGQUIT, *FORWARDED)}
    try:
        yield
    finally:
        for number, kept in before.items():
            signal.signal(number, kept)


class ServerWatch:
    """Starts a server anew at the same address when it dies under an agent, whose retries go on there."""

    def __init__(self, server: RunningServer, start_again: Callable[[], RunningServer]) -> None:
        self._server = server
        self._start_again = start_again
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server-watch", daemon=True)
        self.notes: list[str] = []
        """What happened, to be told once the terminal is ours again."""

    def __enter__(self) -> ServerWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join(LEAVE_SECONDS)

    def join(self, wait_seconds: float) -> None:
        """Wait until the watch has ended by itself, having given up."""
        self._thread.join(wait_seconds)

    def _watch(self) -> None:
        living, num_restarts = lifetime_of(self._server.pid), 0
        while not self._is_over.wait(WATCH_SECONDS):
            if living is not None and living.goes_on:
                continue
            if num_restarts == MAX_RESTARTS:
                self.notes.append(
                    f"the server died {MAX_RESTARTS + 1} times and was left so: its `server.log` may tell why"
                )
                return
            num_restarts += 1
            try:
                self._server = self._start_again()
            except PensieveError as error:
                self.notes.append(f"the server died and could not be started again: {error}")
                return
            self.notes.append("the server died while the agent ran, and was started again")
            living = lifetime_of(self._server.pid)
