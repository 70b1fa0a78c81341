"""The prefix cache's arrays: keeps what prompts have computed, hands it out again, follows the index's decisions.

Everything here runs on the engine thread, which owns the arrays. Knows nothing of requests or batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import msgspec

from pensieve.inference.backend import CacheFigures
from pensieve.inference.mlx import layout
from pensieve.inference.mlx.disk_copies import DiskCopies, Loaded
from pensieve.inference.mlx.disk_plan import Reading
from pensieve.inference.mlx.disk_tier import DiskStats, DiskTier
from pensieve.inference.mlx.layout import Slice, States
from pensieve.inference.mlx.prefix_cache import (
    BLOCK_TOKENS,
    EXTENT_BLOCKS,
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
    disk_hit_tokens: int = 0
    """Of the hit tokens, those that came from disk."""
    num_slower: int = 0
    """Files that were not read because computing was expected to be quicker."""
    disk: DiskStats | None = None


class Found(NamedTuple):
    """Where a prompt's prefix can come from: memory holds and can use so much, the disk adds what is planned."""

    held: Match
    usable: Match
    reading: Reading

    @property
    def num_tokens(self) -> int:
        """Tokens of the prefix."""
        return max(self.usable.num_blocks, self.reading.end) * BLOCK_TOKENS


class PrefixStore:
    """Prefixes of prompts, found again by their tokens; `make_cache` gives a model's fresh caches, one per layer.

    `budget_bytes` bounds the arrays held; 0 turns everything off. One sequence per cache (batch size 1) throughout.
    `extent_blocks`: blocks held as one array at most. The store closes its disk tier.
    """

    def __init__(
        self,
        make_cache: Callable[[], list[Any]],
        *,
        fingerprint: str,
        budget_bytes: int,
        disk: DiskTier | None = None,
        extent_blocks: int = EXTENT_BLOCKS,
    ) -> None:
        fresh = make_cache()
        self.is_trimmable = layout.is_trimmable(fresh)
        """Whether a prefix may end after any block; else only where `keep` was called with whole blocks."""
        self.budget_bytes = self._full_budget_bytes = budget_bytes
        self._make_cache = make_cache
        self._root = root_digest(fingerprint)
        self._extent_blocks = extent_blocks
        self._disk = DiskCopies(disk, self._root, fresh) if disk else None
        self._clear()
        self._num_hits = self._num_misses = self._hit_tokens = self._evicted_bytes = 0
        self._disk_hit_tokens = self._num_slower = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays held in memory."""
        return self._index.num_bytes

    @property
    def figures(self) -> CacheFigures:
        """What it holds and has evicted."""
        return CacheFigures(self.num_bytes, self._evicted_bytes)

    def probe(self, tokens: Sequence[int]) -> int:
        """Tokens that `fetch` would give now; always fewer than there are, so that there is one to go on from.

        Files that turn out to be broken make `fetch` give fewer.
        """
        return self._find(tokens).num_tokens

    def fetch(self, tokens: Sequence[int]) -> tuple[list[Any], int]:
        """Fresh caches filled with the longest usable prefix, and its length in tokens; empty ones and 0 without one.

        There is room for the rest of the prompt. Nothing that is done to the caches changes what is stored.
        """
        found, loaded = self._load(tokens)
        caches = self._make_cache()
        self._count(found)
        if loaded:
            held = found.held.first(min(found.held.num_blocks, found.reading.end))
            self._restore(caches, held, loaded, found, tokens)
            self.keep(tokens[: found.num_tokens], caches)
        elif found.usable.num_blocks:
            self._use_again(found.usable)
            self._restore(caches, found.usable, None, found, tokens)
        return caches, found.num_tokens

    def keep(self, tokens: Sequence[int], caches: Sequence[Any]) -> None:
        """Store what is not stored yet of these caches, which hold exactly these tokens: whole blocks only.

        Where layers cannot be cut, only tokens that fill whole blocks can be stored: another number is passed over.
        """
        live = layout.live_slice(caches, len(tokens))
        if self._disk:
            self._disk.learn(live)
        num_blocks, rest = divmod(len(tokens), BLOCK_TOKENS)
        if not self.budget_bytes or not num_blocks or (rest and not self.is_trimmable):
            return
        digests = list(block_digests(self._root, tokens, num_blocks))
        match = self._index.match(digests)
        self._index.touch(match)
        states = (
            None
            if self.is_trimmable or (match.num_blocks == num_blocks and match.boundary)
            else layout.snapshot(caches)
        )
        missing = self._make_room(match, digests[match.num_blocks :], live, states)
        if missing is None:
            return
        self._write(match, missing, live)
        stored = self._index.match(digests)
        if states is not None:
            stored = self._write_boundary(stored, states)
        self._note_worth(stored, len(tokens))
        self._is_checked = False

    def release(self, num_bytes: int, *, needed_for: Sequence[int] = ()) -> int:
        """Free at least that many bytes, or all there are, the least recently used first; returns the bytes freed.

        What serves the prompt that needs them goes last.
        """
        self._index.touch(self._find(needed_for).usable)
        return self._evict(self._index.victims(num_bytes))

    def limit(self, share: float) -> None:
        """Hold that part of the budget at most from now on; what is above it goes, the least recently used first."""
        self.budget_bytes = self._index.budget_bytes = int(self._full_budget_bytes * share)
        self.release(self.num_bytes - self.budget_bytes)

    def idle(self) -> bool:
        """Do one small piece of background work: check the books, or copy out one file; True if more is waiting."""
        if not self._is_checked:
            self._is_checked = True
            self._check_or_clear()
            return self._disk is not None
        return self._disk.write_next(self._slices, self._states) if self._disk else False

    def note_prefill(self, num_tokens: int, seconds: float) -> None:
        """Learn how fast prompts are computed: it decides what is worth reading from disk."""
        if self._disk:
            self._disk.disk.speeds.note_prefill(num_tokens, seconds)

    def check_integrity(self) -> None:
        """Raise AssertionError where books and arrays do not agree."""
        self._index.check()
        entries = list(self._index.entries())
        assert len(entries) == len(self._slices) + len(self._states), "arrays of something that is not stored"
        for entry in entries:
            held: Any = self._slices[entry] if isinstance(entry, Extent) else self._states[entry]
            assert layout.num_bytes(held) == entry.num_bytes, "an entry holds more or less than its books say"
        if self._disk:
            self._disk.disk.check_integrity()

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
            disk_hit_tokens=self._disk_hit_tokens,
            num_slower=self._num_slower,
            disk=self._disk.disk.stats() if self._disk else None,
        )

    def close(self, *, flush_seconds: float = 0.0) -> None:
        """Write what waits for the disk, for so long at most; then drop every array."""
        if self._disk:
            self._disk.flush(self._slices, self._states, flush_seconds)
            self._disk.disk.close()
        self._clear()

    def _clear(self) -> None:
        self._index = PrefixIndex(
            budget_bytes=self.budget_bytes, is_trimmable=self.is_trimmable, extent_blocks=self._extent_blocks
        )
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

    def _find(self, tokens: Sequence[int]) -> Found:
        num_blocks = max(len(tokens) - 1, 0) // BLOCK_TOKENS if self.budget_bytes else 0
        digests = block_digests(self._root, tokens, num_blocks)
        if self._disk is None:
            held = self._index.match(digests)
            return Found(held, self._index.usable(held), Reading())
        known = list(digests)
        held = self._index.match(known)
        usable = self._index.usable(held)
        return Found(held, usable, self._disk.plan(known, held, usable))

    def _load(self, tokens: Sequence[int]) -> tuple[Found, Loaded | None]:
        """Where the prefix comes from, and what of it was read from disk; a file of no use is passed over."""
        while True:
            found = self._find(tokens)
            if not (self._disk and found.reading.end):
                return found, None
            loaded = self._disk.read(found.reading)
            if loaded:
                return found, loaded

    def _count(self, found: Found) -> None:
        self._num_hits += found.num_tokens > 0
        self._num_misses += found.num_tokens == 0
        self._hit_tokens += found.num_tokens
        self._num_slower += found.reading.num_slower
        if found.reading.end:
            self._disk_hit_tokens += found.num_tokens - found.usable.num_tokens

    def _use_again(self, match: Match) -> None:
        self._index.touch(match)
        self._note_worth(match, WORTH_KEEPING_TOKENS)

    def _note_worth(self, match: Match, prompt_tokens: int) -> None:
        """A prefix that came again, or a long one, is worth a place on disk."""
        for extent in match.path:
            extent.is_worth_keeping |= prompt_tokens >= WORTH_KEEPING_TOKENS
        if self._disk:
            self._disk.note(extent for extent in match.path if extent.is_worth_keeping)
            self._disk.note([match.boundary] if match.boundary and match.boundary.extent.is_worth_keeping else [])

    def _restore(
        self, caches: list[Any], match: Match, loaded: Loaded | None, found: Found, tokens: Sequence[int]
    ) -> None:
        """Fill the caches from memory, then from what was read, with room for the rest of the prompt."""
        capacity = -(-(len(tokens) + 1) // CAPACITY_STEP_TOKENS) * CAPACITY_STEP_TOKENS
        parts = [(self._slices[extent], count * BLOCK_TOKENS) for extent, count in match.parts()]
        states = self._states[match.boundary] if match.boundary else None
        if loaded:
            parts, states = parts + loaded.slices, loaded.states
        arrays = layout.join(parts, spare_tokens=capacity - found.num_tokens)
        mx.async_eval(layout.arrays_of(arrays))  # type: ignore[no-untyped-call]
        layout.restore(caches, arrays, states, found.num_tokens)

    def _make_room(self, match: Match, missing: list[bytes], live: Slice, states: States | None) -> list[bytes] | None:
        """Evict until as much as can fit does fit; the blocks that fit, None where nothing is to be stored."""
        block_bytes = layout.token_bytes(live) * BLOCK_TOKENS
        boundary_bytes = layout.num_bytes(states)
        count = self._index.fitting_blocks(match, len(missing), block_bytes=block_bytes, boundary_bytes=boundary_bytes)
        if count is None or not (count or states):
            return None
        needed = self.num_bytes + count * block_bytes + boundary_bytes - self.budget_bytes
        self._evict(self._index.victims(needed))
        return missing[:count]

    def _write(self, match: Match, digests: list[bytes], live: Slice) -> None:
        block_bytes = layout.token_bytes(live) * BLOCK_TOKENS
        written: list[mx.array] = []
        for addition in self._index.append(match, digests, block_bytes=block_bytes):
            self._slices[addition.extent] = self._enlarged(addition, live)
            written += layout.arrays_of(self._slices[addition.extent])
        # Running answers need not wait for the copies, only for the processor to ask for them.
        mx.async_eval(written)  # type: ignore[no-untyped-call]

    def _enlarged(self, addition: Addition, live: Slice) -> Slice:
        new = layout.cut(live, addition.start * BLOCK_TOKENS, addition.end * BLOCK_TOKENS)
        old = self._slices.get(addition.extent)
        if old is None:
            return new
        num_old = addition.start - addition.extent.start
        return layout.join([(old, num_old * BLOCK_TOKENS), (new, (addition.end - addition.start) * BLOCK_TOKENS)])

    def _write_boundary(self, match: Match, states: States) -> Match:
        mx.eval(layout.arrays_of(states))
        boundary = self._index.add_boundary(match, layout.num_bytes(states))
        self._states[boundary] = states
        return match.first(match.num_blocks)

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
