"""Many sequences side by side: nothing of one is seen by another, and sizes change once in 256 tokens."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache

from pensieve.inference.mlx.batch_cache import STEP_TOKENS, PaddedKVCache, batched, viewed

HEADS, WIDTH = 2, 4


def filled(num_tokens: int, seed: int) -> KVCache:
    """A cache of batch size 1 with random keys and values."""
    cache = KVCache()
    keys = mx.random.normal((1, HEADS, num_tokens, WIDTH), key=mx.random.key(seed))
    cache.update_and_fetch(keys, keys + 1)
    return cache


def same(cache: KVCache, other: KVCache) -> bool:
    """Whether they hold the same tokens."""
    ours, theirs = (each.keys[..., : each.offset, :] for each in (cache, other))
    return cache.offset == other.offset and bool(mx.array_equal(ours, theirs))


@pytest.mark.parametrize("lengths", [(3, 3), (1, 255), (256, 5), (255, 256, 257)])
def test_each_row_comes_out_as_it_went_in(lengths: tuple[int, ...]) -> None:
    """Whatever the lengths beside it."""
    caches = [filled(length, seed) for seed, length in enumerate(lengths)]
    rows = PaddedKVCache(caches)
    for place, cache in enumerate(caches):
        assert same(rows.view(place), cache)
        assert same(rows.extract(place), cache)


def test_rows_that_join_and_leave_stay_what_they_are() -> None:
    """A longer one pushes the others to the right, and when it goes they come back."""
    caches = [filled(length, length) for length in (10, 300, 20)]
    rows = PaddedKVCache(caches[:1])
    for cache in caches[1:]:
        rows.extend(PaddedKVCache([cache]))
    assert rows.paddings == [290, 0, 280]
    rows.filter([0, 2])
    assert rows.paddings == [10, 0]
    assert same(rows.view(0), caches[0])
    assert same(rows.view(1), caches[2])
    assert rows.offset.tolist() == [10, 20]


def test_the_mask_hides_padding_and_what_is_not_written_yet() -> None:
    """A row sees its own tokens and the one that is being written."""
    rows = PaddedKVCache([filled(3, 1), filled(5, 2)])
    mask = rows.make_mask(1)
    assert mask.shape == (2, 1, 1, STEP_TOKENS)
    columns: Any = mask[:, 0, 0].tolist()
    seen = [[place for place, flag in enumerate(row) if flag] for row in columns]
    assert seen == [[2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    near: Any = rows.make_mask(1, window_size=2)[:, 0, 0].tolist()
    assert [sum(row) for row in near] == [2, 2]


def test_sizes_change_once_in_a_step_of_tokens() -> None:
    """So that a GPU plans its attention once for all of them; the mask is made before the arrays grow."""
    rows = PaddedKVCache([filled(3, 1), filled(254, 2)])
    sizes = []
    for _ in range(4):
        mask = rows.make_mask(1)
        keys, _ = rows.update_and_fetch(mx.ones((2, HEADS, 1, WIDTH)), mx.ones((2, HEADS, 1, WIDTH)))
        assert mask.shape[-1] == keys.shape[2]
        sizes.append(keys.shape[2])
    assert sizes == [STEP_TOKENS, STEP_TOKENS, 2 * STEP_TOKENS, 2 * STEP_TOKENS]


def test_a_view_is_not_changed_by_later_tokens() -> None:
    """What was taken out of the batch stays as it was, evaluated or not."""
    cache = filled(5, 1)
    rows = PaddedKVCache([cache, filled(9, 2)])
    view = viewed(rows, 0)
    rows.update_and_fetch(mx.ones((2, HEADS, 1, WIDTH)), mx.ones((2, HEADS, 1, WIDTH)))
    assert same(view, cache)


def test_other_kinds_of_cache_are_batched_by_their_own_class() -> None:
    """An empty one too."""
    assert not isinstance(batched([KVCache(), KVCache()]), PaddedKVCache)
    assert isinstance(batched([filled(2, 1), filled(3, 2)]), PaddedKVCache)
