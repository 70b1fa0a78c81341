"""The prefix cache's arrays: keeps what prompts have computed, hands it out again, follows the index's decisions.

Everything here runs on the engine thread, which owns the arrays. Knows nothing of requests or batches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import msgspec

from pensieve.inference.mlx import layout
from pensieve.inference.mlx.layout import Slice, States
from pensieve.inference.mlx.prefix_cache import (
    BLOCK_TOKENS,
    Addition,
    Boundary,
    Entry,
    Extent,
    Match,
    PrefixIndex,
    block_digests,
    root_digest,
)

log = logging.getLogger(__name__)

CAPACITY_STEP_TOKENS = 256
"""Caches grow in such steps; room is left to the next one after the prompt."""

WORTH_KEEPING_TOKENS = 256
"""A prompt this long is worth a place on disk even if it came once."""


class PrefixStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the prefix cache did since it was opened, and what it holds now."""

    num_hits: int = 0
    num_misses: int = 0
    hit_tokens: int = 0
    """Prompt tokens that were not computed again."""
    memory_bytes: int = 0
    num_extents: int = 0
    num_boundaries: int = 0
    evicted_bytes: int = 0


class PrefixStore:
    """Prefixes of prompts, found again by their tokens; `make_cache` gives a model's fresh caches, one per layer.

    `budget_bytes` bounds the arrays held; 0 turns everything off. One sequence per cache (batch size 1) throughout.
    """

    def __init__(self, make_cache: Callable[[], list[Any]], *, fingerprint: str, budget_bytes: int) -> None:
        self.is_trimmable = layout.is_trimmable(make_cache())
        """Whether a prefix may end after any block; else only where `keep` was called with whole blocks."""
        self.budget_bytes = budget_bytes
        self._make_cache = make_cache
        self._root = root_digest(fingerprint)
        self._clear()
        self._num_hits = self._num_misses = self._hit_tokens = self._evicted_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays held in memory."""
        return self._index.num_bytes

    def probe(self, tokens: Sequence[int]) -> int:
        """Tokens that `fetch` would give now; always fewer than there are, so that there is one to go on from."""
        return self._find(tokens).num_tokens

    def fetch(self, tokens: Sequence[int]) -> tuple[list[Any], int]:
        """Fresh caches filled with the longest usable prefix, and its length in tokens; empty ones and 0 without one.

        There is room for the rest of the prompt. Nothing that is done to the caches changes what is stored.
        """
        match = self._find(tokens)
        caches = self._make_cache()
        self._count(match)
        if match.num_blocks:
            self._index.touch(match)
            for extent in match.path:
                extent.is_worth_keeping = True
            self._restore(caches, match, len(tokens))
        return caches, match.num_tokens

    def keep(self, tokens: Sequence[int], caches: Sequence[Any]) -> None:
        """Store what is not stored yet of these caches, which hold exactly these tokens: whole blocks only.

        Where layers cannot be cut, only tokens that fill whole blocks can be stored: another number is passed over.
        """
        live = layout.live_slice(caches, len(tokens))
        num_blocks, rest = divmod(len(tokens), BLOCK_TOKENS)
        if not self.budget_bytes or not num_blocks or (rest and not self.is_trimmable):
            return
        digests = list(block_digests(self._root, tokens, num_blocks))
        match = self._index.match(digests)
        self._index.touch(match)
        states = None if self.is_trimmable or match.first(num_blocks).boundary else layout.snapshot(caches)
        missing = self._make_room(match, digests[match.num_blocks :], live, states)
        if missing is None:
            return
        self._write(match, missing, live, len(tokens))
        if states is not None:
            self._write_boundary(self._index.match(digests), states)
        self._is_checked = False

    def release(self, num_bytes: int) -> int:
        """Free at least that many bytes, or all there are, the least recently used first; returns the bytes freed."""
        return self._evict(self._index.victims(num_bytes))

    def idle(self) -> bool:
        """Do one small piece of background work; True if more is waiting."""
        if not self._is_checked:
            self._is_checked = True
            self._check_or_clear()
        return False

    def check_integrity(self) -> None:
        """Raise AssertionError where books and arrays do not agree."""
        self._index.check()
        entries = list(self._index.entries())
        assert len(entries) == len(self._slices) + len(self._states), "arrays of something that is not stored"
        for entry in entries:
            held: Any = self._slices[entry] if isinstance(entry, Extent) else self._states[entry]
            assert layout.num_bytes(held) == entry.num_bytes, "an entry holds more or less than its books say"

    def stats(self) -> PrefixStats:
        """The numbers so far."""
        return PrefixStats(
            num_hits=self._num_hits,
            num_misses=self._num_misses,
            hit_tokens=self._hit_tokens,
            memory_bytes=self.num_bytes,
            num_extents=len(self._slices),
            num_boundaries=len(self._states),
            evicted_bytes=self._evicted_bytes,
        )

    def close(self) -> None:
        """Drop every array."""
        self._clear()

    def _clear(self) -> None:
        self._index = PrefixIndex(budget_bytes=self.budget_bytes, is_trimmable=self.is_trimmable)
        self._slices: dict[Extent, Slice] = {}
        self._states: dict[Boundary, States] = {}
        self._is_checked = True

    def _check_or_clear(self) -> None:
        """Books that do not balance are a bug, but not one to end the engine for: everything stored is let go."""
        try:
            self.check_integrity()
        except AssertionError as problem:
            log.error("prefix cache: %s; it starts anew", problem)  # noqa: TRY400 (the sentence says where)
            self._clear()

    def _find(self, tokens: Sequence[int]) -> Match:
        num_blocks = max(len(tokens) - 1, 0) // BLOCK_TOKENS
        return self._index.usable(self._index.match(block_digests(self._root, tokens, num_blocks)))

    def _count(self, match: Match) -> None:
        self._num_hits += match.num_blocks > 0
        self._num_misses += match.num_blocks == 0
        self._hit_tokens += match.num_tokens

    def _restore(self, caches: list[Any], match: Match, prompt_tokens: int) -> None:
        capacity = -(-(prompt_tokens + 1) // CAPACITY_STEP_TOKENS) * CAPACITY_STEP_TOKENS
        parts = [(self._slices[extent], count * BLOCK_TOKENS) for extent, count in match.parts()]
        arrays = layout.join(parts, spare_tokens=capacity - match.num_tokens)
        mx.eval(layout.arrays_of(arrays))
        states = self._states[match.boundary] if match.boundary else None
        layout.restore(caches, arrays, states, match.num_tokens)

    def _make_room(self, match: Match, missing: list[bytes], live: Slice, states: States | None) -> list[bytes] | None:
        """Evict until as much as can fit does fit; the blocks that fit, None where nothing is to be stored."""
        block_bytes = layout.token_bytes(live) * BLOCK_TOKENS
        boundary_bytes = layout.num_bytes(states)
        count = self._index.fitting_blocks(match, len(missing), block_bytes=block_bytes, boundary_bytes=boundary_bytes)
        if count is None or not (count or states):
            return None
        needed = self.num_bytes + count * block_bytes + boundary_bytes - self.budget_bytes
        self._evict(self._index.victims(needed, spared=match.path))
        return missing[:count]

    def _write(self, match: Match, digests: list[bytes], live: Slice, prompt_tokens: int) -> None:
        block_bytes = layout.token_bytes(live) * BLOCK_TOKENS
        written: list[mx.array] = []
        for addition in self._index.append(match, digests, block_bytes=block_bytes):
            self._slices[addition.extent] = self._enlarged(addition, live)
            addition.extent.changed_seconds = time.monotonic()
            addition.extent.is_worth_keeping |= prompt_tokens >= WORTH_KEEPING_TOKENS
            written += layout.arrays_of(self._slices[addition.extent])
        mx.eval(written)

    def _enlarged(self, addition: Addition, live: Slice) -> Slice:
        new = layout.cut(live, addition.start * BLOCK_TOKENS, addition.end * BLOCK_TOKENS)
        old = self._slices.get(addition.extent)
        if old is None:
            return new
        num_old = addition.start - addition.extent.start
        return layout.join([(old, num_old * BLOCK_TOKENS), (new, (addition.end - addition.start) * BLOCK_TOKENS)])

    def _write_boundary(self, match: Match, states: States) -> None:
        mx.eval(layout.arrays_of(states))
        boundary = self._index.add_boundary(match, layout.num_bytes(states))
        self._states[boundary] = states

    def _evict(self, victims: list[Entry]) -> int:
        freed = 0
        for entry in victims:
            self._index.remove(entry)
            if isinstance(entry, Extent):
                del self._slices[entry]
            else:
                del self._states[entry]
            freed += entry.num_bytes
        self._evicted_bytes += freed
        self._is_checked = self._is_checked and not victims
        return freed
