"""What the engine does while nobody asks for anything, a small piece at a time. Runs on the engine's thread."""

from __future__ import annotations

import time

import mlx.core as mx

from pensieve.devices import heap
from pensieve.inference.failure import converted
from pensieve.inference.mlx.prefix_store import PrefixStore

POOL_SECONDS = 0.5
"""Buffers are given back when nobody has asked for anything for so long: under load they are needed again at once."""


class Chores:
    """Which there are, since the last answer ended or memory became short."""

    def __init__(self) -> None:
        self.has_any = self._has_pool = False
        """The pool: buffers that MLX keeps for its next arrays."""
        self._ended_seconds = 0.0

    def note_end(self) -> None:
        """An answer has ended, and leaves buffers."""
        self.has_any = self._has_pool = True
        self._ended_seconds = time.monotonic()

    def give_back(self) -> None:
        """Memory is short, so that buffers go at once, whatever runs."""
        mx.clear_cache()
        self.has_any = self._has_pool = True

    def do_one(self, store: PrefixStore) -> None:
        """A small piece of what can wait until nobody asks for anything."""
        if self._has_pool and time.monotonic() - self._ended_seconds >= POOL_SECONDS:
            mx.clear_cache()
            heap.trim()
            self._has_pool = False
        self.has_any = store.idle() or self._has_pool

    def give_up(self, error: Exception) -> None:
        """One failed: the rest waits for the next answer's end."""
        converted(error)
        self.has_any = False
