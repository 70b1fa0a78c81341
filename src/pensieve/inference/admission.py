"""Whether a sequence may run, from what it costs and what memory is left: values in, decisions out. No engine here.

One rule for every engine. What a sequence costs is its cache by layer kind (`CacheShape`), the padding it forces on the
rows beside it, and the scratch of its largest step (`Transient`); never the `max_tokens` its client asked for. The two
laws: a live request beats a cached prefix, and where nothing runs, nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from pensieve.models.sizes import in_words

LayerKind = Literal["full", "sliding", "recurrent", "latent", "shared"]

STEP_TOKENS = 256
"""The step by which MLX's caches grow."""

GROWTH_TOKENS = 256
"""Generated tokens that are priced ahead: one step. Clients ask for 32,000 and use 300; longer answers are
`Budget.committed_bytes` once they run."""

COMFORT_TOKENS = 256
"""Chunks shrink down to this before cached prefixes are evicted: smaller ones cost the request more than an hour-old
prefix is worth, while larger ones gain less than recomputing a prefix costs its owner."""

FLOOR_TOKENS = 32
"""The smallest chunk a prompt is read in."""


class LayerCache(msgspec.Struct, frozen=True):
    """What one layer keeps of a sequence.

    `full` and `latent` grow with every token, `sliding` up to its window, `recurrent` is a state of fixed size, and
    `shared` reads another layer's cache. A kind that is not known is priced as `full`.
    """

    kind: LayerKind | str
    bytes_per_token: int = 0
    window_tokens: int = 0
    state_bytes: int = 0

    def bytes_at(self, num_tokens: int, *, step_tokens: int = STEP_TOKENS, chunk_tokens: int = 1) -> int:
        """Bytes held for a sequence of `num_tokens`, read in steps of `chunk_tokens` (1: while it decodes)."""
        match self.kind:
            case "shared":
                return 0
            case "recurrent":
                return self.state_bytes
            case "sliding":
                slots = min(_round_up(num_tokens, step_tokens), self.window_tokens + chunk_tokens - 1)
                return slots * self.bytes_per_token + self.state_bytes
            case _:
                return _round_up(num_tokens, step_tokens) * self.bytes_per_token + self.state_bytes

    def span_tokens(self, num_tokens: int, chunk_tokens: int) -> int:
        """Tokens that a chunk of `chunk_tokens` at the end of `num_tokens` looks at, itself included."""
        match self.kind:
            case "shared":
                return 0  # the layer whose cache it reads counts
            case "recurrent":
                return min(num_tokens, chunk_tokens)
            case "sliding":
                return min(num_tokens, self.window_tokens + chunk_tokens - 1)
            case _:
                return num_tokens


class CacheShape(msgspec.Struct, frozen=True):
    """What a sequence keeps over all layers of a model."""

    layers: tuple[LayerCache, ...]
    step_tokens: int = STEP_TOKENS
    grows_by_copy: bool = True
    """A layer's cache is copied when it grows by a step, so that old and new are held for a moment."""

    @classmethod
    def uniform(cls, bytes_per_token: int, *, step_tokens: int = STEP_TOKENS) -> CacheShape:
        """The shape where only the sum over all layers is known, and nothing is copied, as in llama.cpp."""
        return cls((LayerCache("full", bytes_per_token),), step_tokens, grows_by_copy=False)

    def cache_bytes(self, num_tokens: int) -> int:
        """Bytes of a sequence of `num_tokens` while it decodes."""
        return self.prefill_cache_bytes(num_tokens, 1)

    def prefill_cache_bytes(self, num_tokens: int, chunk_tokens: int) -> int:
        """Bytes after reading `num_tokens` in chunks of `chunk_tokens`: windows hold a chunk more until they decode."""
        return sum(
            layer.bytes_at(num_tokens, step_tokens=self.step_tokens, chunk_tokens=chunk_tokens) for layer in self.layers
        )

    def batch_bytes(self, num_rows: int, longest_tokens: int) -> int:
        """Bytes of `num_rows` sequences decoded together: every row is padded to the longest."""
        return num_rows * self.cache_bytes(longest_tokens)

    def span_tokens(self, num_tokens: int, chunk_tokens: int) -> int:
        """The most tokens that any layer looks at while the last chunk of `num_tokens` is read."""
        return max((layer.span_tokens(num_tokens, chunk_tokens) for layer in self.layers), default=0)

    def growth_bytes(self, num_rows: int, longest_tokens: int) -> int:
        """The copy that is held for a moment when caches grow by a step: one layer's, the largest."""
        if not self.grows_by_copy:
            return 0
        sizes = (layer.bytes_at(longest_tokens, step_tokens=self.step_tokens) for layer in self.layers)
        return num_rows * max(sizes, default=0)


class Transient(msgspec.Struct, frozen=True, kw_only=True):
    """The scratch of one step: what is allocated and given back while the model runs."""

    query_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    """Width of one token's feed-forward layer, all its active experts together."""
    vocabulary: int
    element_bytes: int
    is_fused: bool
    """Attention over a chunk runs without its scores in memory; depends on head size and device."""
    score_copies: int = 1
    """Arrays as large as the scores that are held at once; latent attention adds a second one."""
    most_logit_rows: int = 1
    """Positions of a chunk that are turned into logits, at most."""

    def prefill_bytes(self, chunk_tokens: int, context_tokens: int) -> int:
        """Bytes of reading a chunk whose tokens look at `context_tokens`, themselves and cached ones included."""
        attention_width = self.query_heads * self.head_dim
        activations = chunk_tokens * (4 * self.hidden + 4 * attention_width + 3 * self.intermediate)
        logit_rows = min(chunk_tokens, self.most_logit_rows)
        return (
            activations * self.element_bytes
            + self._score_bytes(chunk_tokens, context_tokens)
            + logit_rows * self.vocabulary * 4
        )

    def decode_bytes(self, num_rows: int, context_tokens: int) -> int:
        """Bytes of decoding one token of each of `num_rows` sequences, padded to `context_tokens`."""
        attention_width = self.query_heads * self.head_dim
        width = 4 * self.hidden + 4 * attention_width + 3 * self.intermediate + context_tokens * self.query_heads
        logits_and_sampling = 3 * self.vocabulary * 4
        return num_rows * (width * self.element_bytes + logits_and_sampling)

    def _score_bytes(self, chunk_tokens: int, context_tokens: int) -> int:
        if self.is_fused:
            return 0
        scores = self.score_copies * self.query_heads * chunk_tokens * context_tokens * self.element_bytes
        # Measured on real models: masks and copies of keys and values take up to a quarter on top.
        return scores + scores // 4 + self.query_heads * chunk_tokens * self.head_dim * 4


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a sequence asks for; `cached_tokens` of its prompt need no reading, but memory all the same."""

    prompt_tokens: int
    cached_tokens: int = 0
    growth_tokens: int = GROWTH_TOKENS

    @property
    def unread_tokens(self) -> int:
        """Tokens that must go through the model: one at least."""
        return max(1, self.prompt_tokens - self.cached_tokens)


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The sequences that were admitted and have not ended; `num_bytes` is what ending all of them gives back."""

    num_sequences: int = 0
    longest_tokens: int = 0
    num_bytes: int = 0


IDLE = Running()


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The memory there is, in bytes. `available_bytes` may still be allocated now, evictable prefixes not counted."""

    available_bytes: int
    reserve_bytes: int = 0
    """Never given out."""
    evictable_bytes: int = 0
    """What the prefix cache would give back. Touch the sequence's own prefix first, so that it goes last."""
    committed_bytes: int = 0
    """What running sequences and admitted ones that have not allocated yet will still take."""

    @property
    def free_bytes(self) -> int:
        """What a new sequence may take without evicting anything; negative where too much was given out."""
        return self.available_bytes - self.reserve_bytes - self.committed_bytes

    def once_idle(self, running: Running) -> int:
        """What it could take if nothing else ran and nothing were cached."""
        return self.available_bytes - self.reserve_bytes + self.evictable_bytes + running.num_bytes


class Admit(msgspec.Struct, frozen=True, tag=True):
    """It may run, reading its prompt `chunk_tokens` a step, and takes up to `needed_bytes`."""

    chunk_tokens: int
    needed_bytes: int


class Evict(msgspec.Struct, frozen=True, tag=True):
    """It may run once the prefix cache has given back `num_bytes`; then ask again."""

    num_bytes: int


class Wait(msgspec.Struct, frozen=True, tag=True):
    """It fits once running sequences have ended; ask again when one does."""

    reason: str


class Refuse(msgspec.Struct, frozen=True, tag=True):
    """It does not fit, and waiting for what runs would not help."""

    reason: str
    needed_bytes: int
    available_bytes: int


Decision = Admit | Evict | Wait | Refuse


def decide(
    need: Need,
    budget: Budget,
    *,
    shape: CacheShape,
    transient: Transient | None,
    chunk_tokens: int,
    running: Running = IDLE,
) -> Decision:
    """Whether the sequence may run now, and in chunks of how many tokens, at most `chunk_tokens`.

    The largest chunk that fits is taken. From `COMFORT_TOKENS` down, cached prefixes are evicted before the chunk
    shrinks further. Where the smallest chunk does not fit, the sequence waits if ending what runs would make room for
    it, and is refused otherwise. Without a transient the engine's scratch is taken to be part of the reserve.
    """
    for chunk in chunk_sizes(min(chunk_tokens, need.unread_tokens)):
        needed = needed_bytes(need, shape=shape, transient=transient, chunk_tokens=chunk, running=running)
        if needed <= budget.free_bytes:
            return Admit(chunk, needed)
        if chunk <= COMFORT_TOKENS and needed <= budget.free_bytes + budget.evictable_bytes:
            return Evict(needed - budget.free_bytes)
    return _wait_or_refuse(need, budget, shape=shape, transient=transient, running=running)


def needed_bytes(
    need: Need, *, shape: CacheShape, transient: Transient | None, chunk_tokens: int, running: Running = IDLE
) -> int:
    """What admitting the sequence takes at its peak, beyond what is held now: a pure sum, in bytes."""
    total_tokens = need.prompt_tokens + need.growth_tokens
    num_rows = running.num_sequences + 1
    longest_tokens = max(total_tokens, running.longest_tokens)
    padding = shape.batch_bytes(running.num_sequences, longest_tokens) - shape.batch_bytes(
        running.num_sequences, running.longest_tokens
    )
    # The prompt is read in a row of its own; joining the batch pads that row too.
    row = max(shape.prefill_cache_bytes(total_tokens, chunk_tokens), shape.cache_bytes(longest_tokens))
    growth = shape.growth_bytes(num_rows, longest_tokens)
    scratch = 0
    if transient is not None:
        prefill = transient.prefill_bytes(chunk_tokens, shape.span_tokens(need.prompt_tokens, chunk_tokens))
        scratch = max(prefill, transient.decode_bytes(num_rows, shape.span_tokens(longest_tokens, 1)))
    return row + padding + growth + scratch


def chunk_sizes(preferred_tokens: int) -> Iterator[int]:
    """The chunk sizes that are tried: the preferred one, halved until the floor; a shorter prompt is one chunk."""
    chunk = max(1, preferred_tokens)
    yield chunk
    while chunk > FLOOR_TOKENS:
        chunk = max(FLOOR_TOKENS, chunk // 2)
        yield chunk


def _wait_or_refuse(
    need: Need, budget: Budget, *, shape: CacheShape, transient: Transient | None, running: Running
) -> Wait | Refuse:
    floor = min(FLOOR_TOKENS, need.unread_tokens)
    alone = needed_bytes(need, shape=shape, transient=transient, chunk_tokens=floor)
    reachable = budget.once_idle(running)
    if running.num_sequences > 0 and alone <= reachable:
        return Wait(
            f"{need.prompt_tokens} prompt tokens need {in_words(alone)}, "
            f"{in_words(budget.free_bytes + budget.evictable_bytes)} can be had while {running.num_sequences} run"
        )
    available = max(0, reachable if running.num_sequences else budget.free_bytes + budget.evictable_bytes)
    reason = f"{need.prompt_tokens} prompt tokens need {in_words(alone)} of memory, {in_words(available)} can be had"
    return Refuse(reason, needed_bytes=alone, available_bytes=available)


def _round_up(num_tokens: int, step_tokens: int) -> int:
    return -(-num_tokens // step_tokens) * step_tokens
