"""Stop strings over a stream of text chunks: what may be shown now, and which stop string ended it.

Text that could be the beginning of a stop string is held back until it is decided. No I/O, no engine.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Feed it text; it gives back what is safe to show. `matched` is the stop string once one was found."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that can be shown now; everything from a stop string on is dropped."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        pending = self._held + text
        found = [(place, stop) for stop in self._stops if (place := pending.find(stop)) >= 0]
        if found:
            place, self.matched = min(found, key=lambda item: (item[0], -len(item[1])))
            self._held = ""
            return pending[:place]
        keep = max(_overlap(pending, stop) for stop in self._stops)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep]

    def flush(self) -> str:
        """The held-back rest, at the end of the text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of `stop` that `text` ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
