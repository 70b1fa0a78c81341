"""How a prompt is cut into pieces: as large as speed allows, as small as running answers need. Plain decisions."""

from __future__ import annotations

from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS

GAP_SECONDS = 0.15
"""How long running answers may wait for their next token while a piece of somebody's prompt is read."""

ALONE_SECONDS = 1.0
"""How long a piece may take when nobody speaks: so long does a cancelled prompt, or a stop, wait for the engine."""

MIN_TOKENS = 32
"""Smaller pieces cost more than they spare."""

BOUNDARY_TOKENS = 2048
"""Caches that cannot be cut are stored at every so many tokens of a prompt, and at its last whole block."""

LOGIT_BYTES = 256 * 2**20
"""What the logits of a prompt's last piece may take: a model makes them for each of its tokens, in float32 at most."""

_SMOOTHING = 0.3


class Pace:
    """How many tokens to read at once, from how quickly the last pieces were read."""

    def __init__(self) -> None:
        self._tokens_per_second: float | None = None

    def note(self, num_tokens: int, seconds: float) -> None:
        """A piece was read. The smallest are left out: they measure the fixed cost of a step."""
        if num_tokens < MIN_TOKENS or seconds <= 0.0:
            return
        speed = num_tokens / seconds
        known = self._tokens_per_second
        self._tokens_per_second = speed if known is None else known + _SMOOTHING * (speed - known)

    def fits(self, num_tokens: int, seconds: float) -> bool:
        """Whether so many tokens are likely to be read in this time."""
        return self._tokens_per_second is not None and num_tokens <= self._tokens_per_second * seconds

    def chunk_tokens(self, most_tokens: int, *, is_anyone_waiting: bool) -> int:
        """Tokens of the next piece, at most `most_tokens`; otherwise a power of two, so that shapes repeat."""
        if self._tokens_per_second is None:
            return min(most_tokens, 4 * MIN_TOKENS)
        seconds = GAP_SECONDS if is_anyone_waiting else ALONE_SECONDS
        affordable = int(self._tokens_per_second * seconds)
        return min(most_tokens, max(MIN_TOKENS, 1 << max(affordable, 1).bit_length() - 1))


def tail_tokens(vocabulary_size: int) -> int:
    """Tokens at the end of a prompt that may go through the model together with the drawing of the first answer."""
    return max(1, LOGIT_BYTES // (4 * max(1, vocabulary_size)))


def next_stop(num_read: int, target: int) -> int:
    """Where the next piece of a prompt must end at the latest when the cache cannot be cut afterwards.

    `target` is where reading ends: the stops are the multiples of `BOUNDARY_TOKENS`, the last whole block, and it.
    """
    boundary = target // BLOCK_TOKENS * BLOCK_TOKENS
    if num_read >= boundary:
        return target
    return min(boundary, (num_read // BOUNDARY_TOKENS + 1) * BOUNDARY_TOKENS)


def is_kept_at(num_read: int, target: int, *, began_at: int, is_trimmable: bool) -> bool:
    """Whether a prompt goes to the prefix cache when a piece of it that began at `began_at` has been read.

    A long one does while it is read: who waits for the beginning they share gets it before the end, and a request that
    is broken off has lost little.
    """
    if is_trimmable:
        return num_read // BOUNDARY_TOKENS > began_at // BOUNDARY_TOKENS
    return num_read == next_stop(num_read - 1, target)
