"""Ctrl-C and termination as exceptions in the main thread, also when it was just about to wait for a key.

Python runs a handler once the main thread comes back from the system call that the signal broke off. A signal in the
moment before that call breaks nothing off, and would have no effect until the next key. So the event loop, in its own
thread, has the wait broken off again until the handler has run. Knows no chat.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

AGAIN = signal.SIGWINCH
"""What breaks a wait off: readline has a handler for it, and so it never becomes a second exception."""
INTERVAL_SECONDS = 0.05
TERMINATED_STATUS = 143


class Signals:
    """Made, started and stopped in the main thread; `loop` runs in another one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._main = threading.get_ident()
        self._is_pending = False
        self._taker: Callable[[], None] | None = None
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._handlers: Mapping[signal.Signals, Any] = {signal.SIGINT: self._interrupt, signal.SIGTERM: self._terminate}

    def start(self) -> None:
        """From now on, SIGINT raises KeyboardInterrupt, where nobody takes it, and SIGTERM raises SystemExit."""
        self._old_handlers = {number: signal.signal(number, handler) for number, handler in self._handlers.items()}
        self._old_descriptor = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        self._loop.call_soon_threadsafe(self._loop.add_reader, self._ours, self._hear)

    def listen(self) -> None:
        """Hear of signals again, after somebody else did (prompt-toolkit's loop, while it reads keys)."""
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)

    @contextmanager
    def given_to(self, taker: Callable[[], None]) -> Iterator[None]:
        """Inside, an interruption calls `taker` and is not raised: what stands there is never left half done."""
        before, self._taker = self._taker, taker
        try:
            yield
        finally:
            self._taker = before

    def stop(self) -> None:
        """Put everything back; the loop must have stopped."""
        signal.set_wakeup_fd(self._old_descriptor)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._loop.remove_reader(self._ours)
        self._ours.close()
        self._theirs.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._loop.call_soon_threadsafe(self._settle)
        if self._taker is None:
            raise KeyboardInterrupt
        self._taker()

    def _terminate(self, number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        self._loop.call_soon_threadsafe(self._settle)
        sys.exit(TERMINATED_STATUS)

    def _hear(self) -> None:
        if any(number in self._handlers for number in self._heard()) and not self._is_pending:
            self._is_pending = True
            self._loop.call_later(INTERVAL_SECONDS, self._break_off)

    def _settle(self) -> None:
        self._heard()  # the signal was announced before its handler ran, but may not have been read yet
        self._is_pending = False

    def _heard(self) -> bytes:
        try:
            return self._ours.recv(4096)
        except BlockingIOError:
            return b""

    def _break_off(self) -> None:
        if self._is_pending:
            signal.pthread_kill(self._main, AGAIN)
            self._loop.call_later(INTERVAL_SECONDS, self._break_off)
