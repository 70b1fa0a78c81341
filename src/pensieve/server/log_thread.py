"""Log lines on their way out: through a bounded queue to a thread, so that a pipe that nobody reads stops nobody.

Knows no format and no level; what finds no place is dropped, counted, and told once there is room again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading

MOST_LINES = 1000
"""Lines that wait, at most; a megabyte or less."""

LAST_SECONDS = 1.0
"""At the end what waits is written for so long."""


class LogThread(logging.Handler):
    """Writes records to a file descriptor, which it duplicates and owns."""

    def __init__(self, descriptor: int, most_lines: int = MOST_LINES) -> None:
        super().__init__()
        # Past Python's own buffer: a thread that hangs in there would keep the interpreter from ending.
        self._descriptor = os.dup(descriptor)
        self._lines: queue.Queue[str | None] = queue.Queue(most_lines)
        self._counting = threading.Lock()
        self._num_dropped = self._num_untold = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    @property
    def num_dropped(self) -> int:
        """Lines that were never written."""
        return self._num_dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it as dropped; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped()

    def close(self) -> None:
        """Write what waits, for a second at most."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=LAST_SECONDS)
        self._thread.join(LAST_SECONDS)
        super().close()

    def _dropped(self) -> None:
        with self._counting:
            self._num_dropped += 1
            self._num_untold += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._put_out(line)
                self._tell_of_dropped()
            except OSError:  # nobody can read it any more
                self._dropped()
        os.close(self._descriptor)

    def _tell_of_dropped(self) -> None:
        with self._counting:
            num_lines, self._num_untold = self._num_untold, 0
        if num_lines:
            self._put_out(f"WARNING {num_lines} lines of this log were dropped: nobody read it fast enough")

    def _put_out(self, line: str) -> None:
        rest = f"{line}\n".encode(errors="backslashreplace")
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])


def num_dropped_lines() -> int:
    """Lines that the program's log has dropped so far."""
    return sum(each.num_dropped for each in logging.getLogger().handlers if isinstance(each, LogThread))
