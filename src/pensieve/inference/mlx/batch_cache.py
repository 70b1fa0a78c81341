"""The keys and values of many sequences side by side, in arrays whose size changes once in 256 tokens.

mlx-lm's own batched cache shows attention a longer slice at every step. Under CUDA each new length costs a new plan of
several milliseconds, and each sequence that comes or goes makes the processor wait for the GPU in every layer. Here
attention sees the whole array behind a mask, and lengths are known in plain numbers. Other kinds of cache (sliding,
recurrent) are mlx-lm's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache

STEP_TOKENS = 256


class PaddedKVCache(BatchKVCache):  # type: ignore[misc]  # mlx-lm is Any to us
    """Sequences in rows, each ending at the same column: what a row lacks in length is padding on its left."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        """One row for each cache of batch size 1; their arrays are copied."""
        lengths = [cache.offset for cache in caches]
        longest = max(lengths)
        self.paddings = [longest - length for length in lengths]
        super().__init__(self.paddings)
        self._idx = longest
        self.offset: mx.array
        """Of each row's next token, in its own sequence."""
        self._write_offsets()
        size = _rounded(longest + 1)
        self.keys = _stacked([cache.keys for cache in caches], lengths, longest, size)
        self.values = _stacked([cache.values for cache in caches], lengths, longest, size)

    @property
    def end(self) -> int:
        """Columns in use, the same for every row."""
        end: int = self._idx
        return end

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the next column of every row; gives the whole arrays, which the mask knows to end there."""
        num_columns = keys.shape[2]
        if self._idx + num_columns > self.keys.shape[2]:
            size = _rounded(self._idx + num_columns)
            self.keys, self.values = _grown(self.keys, size), _grown(self.values, size)
        end = self._idx + num_columns
        self.keys[..., self._idx : end, :] = keys
        self.values[..., self._idx : end, :] = values
        self._idx = end
        self.offset = self.offset + num_columns
        return self.keys, self.values

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """The whole arrays."""
        return self.keys, self.values

    def make_mask(self, num_tokens: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """True for the columns [B, 1, num_tokens, columns] that a row's next tokens may see."""
        del return_array
        size = max(self.keys.shape[2], _rounded(self._idx + num_tokens))
        columns = mx.arange(size)[None, None, None]
        places = mx.arange(self._idx, self._idx + num_tokens)[None, None, :, None]
        mask = (columns <= places) & (columns >= self.left_padding[:, None, None, None])
        return mask if window_size is None else mask & (columns > places - window_size)

    def extend(self, other: PaddedKVCache) -> None:
        """Add the rows of another one."""
        longest = max(self._idx, other.end)
        size = _rounded(longest + 1)
        pairs = ((self, longest - self._idx), (other, longest - other.end))
        self.keys = mx.concatenate([_shifted(cache.keys, cache.end, shift, size) for cache, shift in pairs])
        self.values = mx.concatenate([_shifted(cache.values, cache.end, shift, size) for cache, shift in pairs])
        self.paddings = [padding + shift for cache, shift in pairs for padding in cache.paddings]
        self._idx = longest
        self._write_offsets()

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep these rows only, and no more padding than they need."""
        self.paddings = [self.paddings[place] for place in batch_indices]
        surplus = min(self.paddings)
        rows = mx.array(list(batch_indices))
        size = _rounded(self._idx - surplus + 1)
        self.keys = mx.take(_shifted(self.keys, self._idx, -surplus, size), rows, axis=0)
        self.values = mx.take(_shifted(self.values, self._idx, -surplus, size), rows, axis=0)
        self.paddings = [padding - surplus for padding in self.paddings]
        self._idx -= surplus
        self._write_offsets()

    def view(self, place: int) -> KVCache:
        """One row as a cache of its own, to be read only: nothing is copied before it is computed with."""
        cache = KVCache()
        columns = slice(self.paddings[place], self._idx)
        cache.keys = self.keys[place : place + 1, :, columns]
        cache.values = self.values[place : place + 1, :, columns]
        cache.offset = self._idx - self.paddings[place]
        return cache

    def extract(self, place: int) -> KVCache:
        """One row as a cache of its own, to go on with, with room for its next tokens."""
        cache = self.view(place)
        size = _rounded(cache.offset + 1)
        cache.keys, cache.values = _grown(cache.keys, size), _grown(cache.values, size)
        return cache

    def _write_offsets(self) -> None:
        self.left_padding = mx.array(self.paddings)
        self.offset = mx.array([self._idx - padding for padding in self.paddings])


def batched(caches: Sequence[Any]) -> Any:
    """One batched cache from caches of batch size 1 of the same layer."""
    if all(type(cache) is KVCache and cache.keys is not None for cache in caches):
        return PaddedKVCache(caches)
    return caches[0].merge(list(caches))


def viewed(cache: Any, place: int) -> Any:
    """A row of a batched cache, to be read before the next step."""
    return cache.view(place) if isinstance(cache, PaddedKVCache) else cache.extract(place)


def _rounded(num_tokens: int) -> int:
    return -(-num_tokens // STEP_TOKENS) * STEP_TOKENS


def _grown(array: mx.array, size: int) -> mx.array:
    """The array [B, H, T, D] with zeros behind it, or without some that it has, up to `size` tokens."""
    missing = size - array.shape[2]
    if missing <= 0:
        return array[..., :size, :]
    return mx.pad(array, [(0, 0), (0, 0), (0, missing), (0, 0)])


def _shifted(array: mx.array, end: int, shift: int, size: int) -> mx.array:
    """The first `end` tokens of the array, `shift` further to the right, in `size` tokens; copied only if need be."""
    if shift == 0 and array.shape[2] == size:
        return array
    if shift < 0:
        array, end, shift = array[..., -shift:, :], end + shift, 0
    return mx.pad(array[..., :end, :], [(0, 0), (0, 0), (shift, size - shift - end), (0, 0)])


def _stacked(arrays: Sequence[mx.array], lengths: Sequence[int], longest: int, size: int) -> mx.array:
    rows = zip(arrays, lengths, strict=True)
    return mx.concatenate([_shifted(array, length, longest - length, size) for array, length in rows])
