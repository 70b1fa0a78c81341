"""When a server that a launcher started may go: nobody holds a key, nothing runs, and it has been so for a while.

A plain decision over what each look finds. Knows no process and no socket.
"""

from __future__ import annotations


class Linger:
    """Remembers since when the server has been left alone; `seconds` is how long it then stays."""

    def __init__(self, seconds: float, now_seconds: float) -> None:
        self._seconds = seconds
        self._left_seconds = now_seconds
        self._num_received = 0

    def is_over(self, *, num_terminals: int, num_running: int, num_received: int, now_seconds: float) -> bool:
        """Whether it is time to stop; any request since the last look was a use."""
        if num_terminals or num_running or num_received != self._num_received:
            self._left_seconds, self._num_received = now_seconds, num_received
        return now_seconds - self._left_seconds >= self._seconds
