"""What a model's caches consist of: layers that can be cut after any token, and layers whose state is kept whole.

The one place that knows mlx-lm's cache classes and the shape of their `state`; knows nothing of prompts or budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, KVCache, RotatingKVCache

Slice = list[mx.array | None]
"""Keys and values of each cuttable layer in turn, each `[1, heads, tokens, width]`; None: the layer is never filled."""

States = list[Any]
"""The `state` of every other layer: nested tuples and lists of arrays, numbers and None."""

TOKEN_AXIS = 2


def leaves(caches: Iterable[Any]) -> list[Any]:
    """The caches with lists of caches opened, in order."""
    found: list[Any] = []
    for cache in caches:
        found += leaves(cache.caches) if isinstance(cache, CacheList) else [cache]
    return found


def is_cuttable(leaf: Any) -> bool:
    """Whether the first n tokens of this cache are the cache of the first n tokens, whatever came after."""
    return type(leaf) is KVCache


def is_trimmable(caches: Iterable[Any]) -> bool:
    """Whether every layer of a model with such caches can be cut after any token."""
    return all(is_cuttable(leaf) for leaf in leaves(caches))


def num_arrays(caches: Iterable[Any]) -> int:
    """Keys and values in a slice of a model with such caches."""
    return 2 * sum(is_cuttable(leaf) for leaf in leaves(caches))


def num_states(caches: Iterable[Any]) -> int:
    """Layers of a model with such caches whose state is kept whole."""
    return sum(not is_cuttable(leaf) for leaf in leaves(caches))


def live_slice(caches: Iterable[Any], num_tokens: int) -> Slice:
    """The keys and values of the cuttable layers as they lie in live caches: nothing is copied.

    Spare room may follow the tokens. Caches that hold another number of tokens are a bug of the caller.
    """
    found: Slice = []
    for leaf in leaves(caches):
        if not is_cuttable(leaf):
            _check_state(leaf, num_tokens)
            continue
        keys, values, offset = leaf.state
        assert keys is None or offset == num_tokens, f"a cache holds {offset} tokens, not {num_tokens}"
        assert keys is None or keys.shape[0] == 1, "a cache holds more than one sequence"
        found += [keys, values]
    return found


def _check_state(leaf: Any, num_tokens: int) -> None:
    if isinstance(leaf, RotatingKVCache):
        assert leaf.offset == num_tokens, f"a sliding cache is at token {leaf.offset}, not {num_tokens}"


def token_bytes(arrays: Slice) -> int:
    """Bytes one token takes in the cuttable layers."""
    filled = [held for held in arrays if held is not None]
    return sum(held.nbytes // held.shape[TOKEN_AXIS] for held in filled if held.shape[TOKEN_AXIS])


def arrays_of(tree: Any) -> list[mx.array]:
    """All arrays of a slice or of states, in order."""
    if isinstance(tree, list | tuple):
        return [held for branch in tree for held in arrays_of(branch)]
    return [tree] if isinstance(tree, mx.array) else []


def num_bytes(tree: Any) -> int:
    """Bytes of all arrays in a slice or in states."""
    return sum(held.nbytes for held in arrays_of(tree))


def cut(arrays: Slice, start: int, end: int) -> Slice:
    """Copies of tokens `start` to `end` (lazily); what they were cut from can be freed."""
    return [None if held is None else mx.contiguous(held[:, :, start:end, :]) for held in arrays]


def join(slices: Sequence[tuple[Slice, int]], *, spare_tokens: int = 0) -> Slice:
    """The first n tokens of each slice, one after the other, then room for `spare_tokens`; always new arrays."""
    joined: Slice = []
    rooms: dict[Any, mx.array] = {}
    for column in zip(*(arrays for arrays, _ in slices), strict=True):
        if column[0] is None:
            joined.append(None)
            continue
        pieces = [held[:, :, :count, :] for held, (_, count) in zip(column, slices, strict=True)]
        if spare_tokens:
            batch, heads, _, width = column[0].shape
            key = (heads, width, column[0].dtype)
            pieces.append(rooms.setdefault(key, mx.zeros((batch, heads, spare_tokens, width), column[0].dtype)))
        joined.append(mx.concatenate(pieces, axis=TOKEN_AXIS))
    return joined


def snapshot(caches: Iterable[Any]) -> States:
    """Copies of the states that cannot be cut (lazily), without room that was never filled or is no longer read."""
    states = [_window_state(leaf) for leaf in leaves(caches) if not is_cuttable(leaf)]
    copied: States = map_arrays(mx.contiguous, states)
    return copied


def _window_state(leaf: Any) -> Any:
    """A sliding window's state: after a long chunk it holds the chunk as well, after a few tokens mostly spare room."""
    if not isinstance(leaf, RotatingKVCache) or leaf.keys is None:
        return leaf.state
    keys, values, offset, keep, max_size, index = leaf.state
    length = keys.shape[TOKEN_AXIS]
    if index == length > max_size:
        first, last = keep, length - (max_size - keep)
        keys, values = (
            mx.concatenate([held[:, :, :first, :], held[:, :, last:, :]], axis=TOKEN_AXIS) for held in (keys, values)
        )
        index = max_size
    elif index == offset < length:
        keys, values = keys[:, :, :index, :], values[:, :, :index, :]
    return keys, values, offset, keep, max_size, index


def restore(caches: Iterable[Any], arrays: Slice, states: States | None, num_tokens: int) -> None:
    """Fill fresh caches: keys and values are handed over, states are shared until they are first written to."""
    slices, kept = iter(arrays), iter(states or [])
    for leaf in leaves(caches):
        if is_cuttable(leaf):
            keys, values = next(slices), next(slices)
            if keys is not None:
                leaf.state = (keys, values, num_tokens)
        else:
            # A new handle on each array: writing into a cache changes the handle it is given, not the stored one.
            leaf.state = map_arrays(mx.array, next(kept))


def map_arrays(change: Callable[[mx.array], mx.array], tree: Any) -> Any:
    """The same nested lists and tuples with every array changed; everything else stays."""
    if isinstance(tree, mx.array):
        return change(tree)
    if isinstance(tree, list | tuple):
        return type(tree)(map_arrays(change, branch) for branch in tree)
    return tree
