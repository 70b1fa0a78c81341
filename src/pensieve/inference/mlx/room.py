"""What the engine runs on, and what still fits there: the model's arrays with their prices, against memory now."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pensieve.inference import admission
from pensieve.inference.mlx.prefix_store import PrefixStore
from pensieve.inference.mlx.runner import Runner
from pensieve.inference.mlx.sequence import Sequence


class Machine(NamedTuple):
    """What the engine needs to know of model and machine; made on the engine thread, with the arrays behind it."""

    runner: Runner
    store: PrefixStore
    shape: admission.CacheShape
    transient: admission.Transient
    vocabulary_size: int
    chunk_tokens: int
    available_bytes: Callable[[], int]
    """Memory that may still be allocated now."""
    reserve_bytes: int
    is_frugal: bool = False
    """Prompts are read in the smallest pieces."""

    def relieved(self, cache_share: float, *, is_frugal: bool) -> Machine:
        """The machine with so much of its cache's budget; what is above it is gone when this returns."""
        self.store.limit(cache_share)
        return self._replace(is_frugal=is_frugal)

    @property
    def most_chunk_tokens(self) -> int:
        """The largest piece of a prompt that may be read now, also of one that was admitted with larger ones."""
        return min(admission.FLOOR_TOKENS, self.chunk_tokens) if self.is_frugal else self.chunk_tokens

    def decide(self, sequence: Sequence, *, reading: list[Sequence], decoding: list[Sequence]) -> admission.Decision:
        """Whether this sequence may run beside those."""
        tokens = sequence.tokens
        # Prompts that are being read were promised memory that they have not taken yet.
        committed = sum(max(0, each.needed_bytes - sum(cache.nbytes for cache in each.caches)) for each in reading)
        return admission.decide(
            admission.Need(prompt_tokens=len(tokens), cached_tokens=self.store.probe(tokens)),
            admission.Budget(
                available_bytes=self.available_bytes(),
                reserve_bytes=self.reserve_bytes,
                evictable_bytes=self.store.num_bytes,
                committed_bytes=committed,
            ),
            shape=self.shape,
            transient=self.transient,
            chunk_tokens=self.most_chunk_tokens,
            running=self._running([*reading, *decoding]),
        )

    def shortage_bytes(self, running: list[Sequence], *, num_steps: int) -> int:
        """What is missing for these to make so many more tokens; negative where there is more than enough.

        Half of the reserve is theirs: they run already, and stopping them is worse.
        """
        held = self._running(running)
        growth = self.shape.growth_bytes(held.num_sequences, held.longest_tokens + num_steps)
        return growth + self.reserve_bytes // 2 - self.available_bytes()

    def _running(self, sequences: list[Sequence]) -> admission.Running:
        longest = max((sequence.num_tokens for sequence in sequences), default=0)
        return admission.Running(
            num_sequences=len(sequences),
            longest_tokens=longest,
            num_bytes=self.shape.batch_bytes(len(sequences), longest),
        )
