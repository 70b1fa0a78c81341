"""The prefix store with real tiny models: the same greedy tokens with it as without, within its budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache, make_prompt_cache
from mlx_lm.utils import load_model

from greedy import greedy, prompt, read
from pensieve.inference.mlx import layout
from pensieve.inference.mlx.disk_tier import DiskTier
from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS
from pensieve.inference.mlx.prefix_store import PrefixStore
from tiny_models import make_tiny_model

FAMILIES = ["llama", "gpt_oss", "gemma3", "mamba2", "qwen3_next", "deepseek_v3"]
MIB = 2**20


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Tiny models by family, each made once."""
    made: dict[str, Any] = {}

    def load(family: str) -> Any:
        if family not in made:
            folder = make_tiny_model(
                tmp_path_factory.mktemp(family), family, num_layers=4 if family in {"qwen3_next", "gemma3"} else 2
            )
            made[family] = load_model(folder)[0]
        return made[family]

    return load


def store_for(model: Any, *, budget_bytes: int = 64 * MIB, disk: DiskTier | None = None) -> PrefixStore:
    """A store with short extents, so that short prompts have several."""
    return PrefixStore(
        lambda: make_prompt_cache(model), fingerprint="tiny", budget_bytes=budget_bytes, disk=disk, extent_blocks=4
    )


def remember(store: PrefixStore, model: Any, tokens: list[int]) -> None:
    """Read a prompt from nothing and keep it."""
    caches = make_prompt_cache(model)
    read(model, tokens, caches)
    store.keep(tokens, caches)
    store.check_integrity()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_stored", [64, 192, 576])
def test_a_fetched_prefix_goes_on_as_if_it_had_been_read(
    load: Callable[[str], Any], family: str, num_stored: int
) -> None:
    """Greedy tokens after a fetched prefix are those of the whole prompt read from nothing."""
    model = load(family)
    tokens = prompt(num_stored + 21)
    store = store_for(model)
    remember(store, model, tokens[:num_stored])
    caches, found = store.fetch(tokens)
    assert found == num_stored
    assert greedy(model, tokens[found:], caches) == greedy(model, tokens, make_prompt_cache(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_going_on_from_a_fetched_cache_leaves_what_is_stored_alone(load: Callable[[str], Any], family: str) -> None:
    """Two continuations of one prefix, one after the other, both equal a continuation from nothing."""
    model = load(family)
    store = store_for(model)
    remember(store, model, prompt(128))
    for seed in (1, 2, 1):
        tokens = prompt(128) + prompt(9, seed=seed)
        caches, found = store.fetch(tokens)
        assert found == 128
        assert greedy(model, tokens[128:], caches, 40) == greedy(model, tokens, make_prompt_cache(model), 40)
        store.check_integrity()


@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
def test_prompts_that_part_inside_an_extent_share_what_comes_before(load: Callable[[str], Any], family: str) -> None:
    """The second prompt adds only its own blocks, and each continues as from nothing."""
    model = load(family)
    store = store_for(model)
    first, second = prompt(512), prompt(300) + prompt(212, seed=7)
    remember(store, model, first)
    alone_bytes = store.num_bytes
    assert store.probe(second) == 256
    remember(store, model, second)
    assert store.num_bytes == alone_bytes + alone_bytes // 2
    for tokens in (first, second):
        caches, found = store.fetch([*tokens, 5])
        assert found == 512
        assert greedy(model, [5], caches) == greedy(model, [*tokens, 5], make_prompt_cache(model))


def test_a_model_that_cannot_be_cut_is_entered_only_where_a_prompt_was_kept(load: Callable[[str], Any]) -> None:
    """A shared beginning does not help a sliding window unless a boundary was stored at it, before or afterwards."""
    model = load("gpt_oss")
    store = store_for(model)
    remember(store, model, prompt(256))
    other = prompt(200) + prompt(100, seed=3)
    assert store.probe(other) == 0
    remember(store, model, prompt(192))
    assert store.probe(other) == 192
    caches, found = store.fetch(other)
    assert greedy(model, other[found:], caches) == greedy(model, other, make_prompt_cache(model))


def test_a_number_of_tokens_that_fills_no_blocks_is_no_boundary(load: Callable[[str], Any]) -> None:
    """Where layers cannot be cut nothing is stored then; elsewhere the whole blocks are."""
    for family, num_stored in (("mamba2", 0), ("llama", 64)):
        store = store_for(load(family))
        remember(store, load(family), prompt(100))
        assert store.probe(prompt(200)) == num_stored
        assert (store.num_bytes > 0) == (num_stored > 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_is_stored_once_however_many_turns_it_has(load: Callable[[str], Any], family: str) -> None:
    """Turn after turn each goes on from the last; extents grow, so a few hold it all."""
    model = load(family)
    store = store_for(model)
    for num_tokens in range(64, 577, 64):
        caches, found = store.fetch(prompt(num_tokens))
        assert found == num_tokens - 64
        read(model, prompt(num_tokens)[found:], caches)
        store.keep(prompt(num_tokens), caches)
    store.check_integrity()
    assert store.stats().num_extents == 3
    caches, found = store.fetch(prompt(600))
    assert found == 576
    expected = greedy(model, prompt(600), make_prompt_cache(model))
    assert greedy(model, prompt(600)[576:], caches) == expected


def test_the_whole_prompt_is_never_taken_from_the_store(load: Callable[[str], Any]) -> None:
    """One token at least is left to be read, for its scores."""
    model = load("llama")
    store = store_for(model)
    remember(store, model, prompt(128))
    assert [store.probe(prompt(count)) for count in (0, 1, 64, 65, 128, 129)] == [0, 0, 0, 64, 64, 128]


def test_a_fetched_cache_has_room_for_the_rest_of_the_prompt(load: Callable[[str], Any]) -> None:
    """Reading the rest and decoding the next token reallocates nothing."""
    model = load("llama")
    store = store_for(model)
    remember(store, model, prompt(128))
    caches, _ = store.fetch(prompt(1024))
    read(model, prompt(1024)[128:], caches)
    read(model, [1], caches)
    assert {leaf.keys.shape[2] for leaf in caches} == {1280}


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "qwen3_next"])
def test_the_budget_holds_and_the_least_recently_used_goes(load: Callable[[str], Any], family: str) -> None:
    """With room for two prompts of three, the one used last is kept and the oldest is not."""
    model = load(family)
    probe_store = store_for(model)
    remember(probe_store, model, prompt(192))
    store = store_for(model, budget_bytes=probe_store.num_bytes * 5 // 2)
    for seed in (0, 1):
        remember(store, model, prompt(192, seed=seed))
    store.fetch([*prompt(192, seed=0), 1])
    remember(store, model, prompt(192, seed=2))
    found = [store.probe([*prompt(192, seed=seed), 1]) for seed in range(3)]
    assert found[0] == found[2] == 192
    assert found[1] < 192
    assert store.stats().evicted_bytes > 0


def test_a_prompt_longer_than_the_budget_keeps_its_beginning(load: Callable[[str], Any]) -> None:
    """What fits is stored; storing it again evicts nothing."""
    model = load("llama")
    one = store_for(model)
    remember(one, model, prompt(64))
    store = store_for(model, budget_bytes=one.num_bytes * 5)
    for _ in range(3):
        remember(store, model, prompt(700))
        assert store.probe(prompt(700)) == 320
    assert store.stats().evicted_bytes == 0


def test_a_longer_prompt_never_evicts_its_own_beginning(load: Callable[[str], Any]) -> None:
    """Even where that was used least recently of all."""
    model = load("llama")
    one = store_for(model)
    remember(one, model, prompt(64))
    store = store_for(model, budget_bytes=one.num_bytes * 5)
    remember(store, model, prompt(192))
    remember(store, model, prompt(128, seed=2))
    remember(store, model, prompt(320))
    assert [store.probe(prompt(400)), store.probe(prompt(130, seed=2))] == [320, 0]


def test_a_boundary_too_large_for_the_budget_costs_the_others_nothing(load: Callable[[str], Any]) -> None:
    """Where layers cannot be cut a prompt is stored whole or not at all, and then nothing goes for it."""
    model = load("qwen3_next")
    one = store_for(model)
    remember(one, model, prompt(64))
    store = store_for(model, budget_bytes=one.num_bytes)
    remember(store, model, prompt(64))
    remember(store, model, prompt(640, seed=4))
    assert store.probe(prompt(65)) == 64
    assert store.stats().evicted_bytes == 0


@pytest.mark.parametrize("family", ["llama", "mamba2"])
def test_release_frees_at_least_what_is_asked(load: Callable[[str], Any], family: str) -> None:
    """Byte by byte of the books, and everything when more is asked than there is."""
    model = load(family)
    store = store_for(model)
    for seed in range(4):
        remember(store, model, prompt(128, seed=seed))
    held = store.num_bytes
    assert store.release(1) >= 1
    assert store.num_bytes < held
    store.check_integrity()
    store.release(held)
    assert store.num_bytes == 0
    assert store.release(1) == 0


def test_a_smaller_share_of_the_budget_evicts_what_is_above_it(load: Callable[[str], Any]) -> None:
    """At once, the oldest first; nothing is kept with none of it, and all is as before with the whole."""
    model = load("llama")
    probe_store = store_for(model)
    remember(probe_store, model, prompt(192))
    store = store_for(model, budget_bytes=probe_store.num_bytes * 2)
    for seed in (0, 1):
        remember(store, model, prompt(192, seed=seed))
    store.limit(0.5)
    store.check_integrity()
    assert [store.probe([*prompt(192, seed=seed), 1]) for seed in (0, 1)] == [0, 192]
    store.limit(0.0)
    remember(store, model, prompt(192, seed=2))
    assert store.num_bytes == 0
    store.limit(1.0)
    remember(store, model, prompt(192, seed=2))
    assert store.probe([*prompt(192, seed=2), 1]) == 192


@pytest.mark.parametrize("family", ["llama", "mamba2"])
def test_what_serves_the_prompt_that_needs_room_goes_last(load: Callable[[str], Any], family: str) -> None:
    """Though it is the oldest: computing it again would cost more than it frees."""
    model = load(family)
    store = store_for(model)
    for seed in range(3):
        remember(store, model, prompt(128, seed=seed))
    assert store.release(store.num_bytes // 2, needed_for=prompt(140, seed=0)) > 0
    assert [store.probe(prompt(140, seed=seed)) for seed in (0, 1)] == [128, 0]
    store.check_integrity()


def test_what_is_stored_does_not_hold_the_live_arrays(load: Callable[[str], Any]) -> None:
    """After the caches are gone, memory is what the books say, and nothing after a release."""
    model = load("llama")
    store = store_for(model)
    mx.synchronize()
    before = mx.get_active_memory()
    remember(store, model, prompt(1025))
    mx.clear_cache()
    assert mx.get_active_memory() - before < store.num_bytes * 1.1
    store.release(store.num_bytes)
    assert mx.get_active_memory() - before < 1000


def test_a_budget_of_nothing_turns_the_store_off(load: Callable[[str], Any]) -> None:
    """Nothing is kept, nothing found, and nothing breaks."""
    model = load("gpt_oss")
    store = store_for(model, budget_bytes=0)
    remember(store, model, prompt(128))
    assert store.fetch(prompt(200))[1] == store.num_bytes == 0
    assert not store.idle()


def test_caches_that_do_not_hold_the_tokens_are_a_bug(load: Callable[[str], Any]) -> None:
    """Keys of other tokens under these digests would poison every later prompt."""
    for family in ("llama", "gpt_oss"):
        store = store_for(load(family))
        caches = make_prompt_cache(load(family))
        read(load(family), prompt(100), caches)
        with pytest.raises(AssertionError, match=r"100 tokens, not 128|token 100, not 128"):
            store.keep(prompt(128), caches)


def test_other_models_never_match(load: Callable[[str], Any]) -> None:
    """The same tokens under another fingerprint have other digests."""
    store = store_for(load("llama"))
    remember(store, load("llama"), prompt(128))
    other = PrefixStore(lambda: make_prompt_cache(load("llama")), fingerprint="other", budget_bytes=MIB)
    other._index, other._slices = store._index, store._slices
    assert (store.probe(prompt(129)), other.probe(prompt(129))) == (128, 0)


def test_books_that_do_not_balance_empty_the_store_and_serving_goes_on(load: Callable[[str], Any]) -> None:
    """Found when idle, said in the log, and the next prompt is stored as if nothing had been."""
    model = load("llama")
    store = store_for(model)
    remember(store, model, prompt(128))
    store._index.num_bytes += 1
    with pytest.raises(AssertionError, match="bytes do not add up"):
        store.check_integrity()
    store.idle()
    assert store.num_bytes == 0
    remember(store, model, prompt(128))
    assert store.probe(prompt(129)) == 128


def test_stats_count_hits_misses_and_tokens(load: Callable[[str], Any]) -> None:
    """A probe counts nothing; a fetch counts once."""
    model = load("llama")
    store = store_for(model)
    store.fetch(prompt(129))
    remember(store, model, prompt(128))
    store.probe(prompt(129))
    store.fetch(prompt(129))
    stats = store.stats()
    assert (stats.num_hits, stats.num_misses, stats.hit_tokens) == (1, 1, 128)
    assert stats.memory_bytes == store.num_bytes > 0


def test_nested_lists_of_caches_are_opened_and_restored() -> None:
    """A list holding a cuttable and a never filled cache comes back filled in the same places."""
    pair, one = cast("Any", CacheList), cast("Any", KVCache)
    store = PrefixStore(lambda: [pair(one(), one())], fingerprint="", budget_bytes=MIB)
    kept = pair(one(), one())
    kept[0].update_and_fetch(mx.ones((1, 1, 64, 4)), mx.zeros((1, 1, 64, 0)))
    store.keep(prompt(64), [kept])
    (fetched,), found = store.fetch(prompt(70))
    assert (found, fetched[0].offset, fetched[1].keys) == (64, 64, None)
    assert mx.array_equal(fetched[0].keys_and_values()[0], mx.ones((1, 1, 64, 4)))


@pytest.mark.parametrize("keep", [0, 4])
@pytest.mark.parametrize("chunks", [[7], [7, 1, 1], [40], [40, 1, 1, 1], [5] + [1] * 40, [40, 9]])
def test_a_window_goes_on_the_same_after_its_snapshot(chunks: list[int], keep: int) -> None:
    """Whatever the window went through, the snapshot is no larger than the window and answers alike."""

    def step(cache: Any, count: int) -> Any:
        base = mx.arange(cache.offset, cache.offset + count, dtype=mx.float32).reshape(1, 1, count, 1)
        return sorted(cache.update_and_fetch(base, base)[0].flatten().tolist())

    make: Any = RotatingKVCache
    live, fresh = make(16, keep), make(16, keep)
    for count in chunks:
        step(live, count)
    layout.restore([fresh], [], layout.snapshot([live]), live.offset)
    assert fresh.keys.shape[2] <= 16
    for count in (1, 1, 3, 1, 20, 1, 1):
        assert step(fresh, count) == step(live, count)
    assert fresh.offset == live.offset


def test_blocks_are_cut_at_whole_blocks() -> None:
    """The size others count on when they place boundaries."""
    assert BLOCK_TOKENS == 64


def counted(tokens: list[int], num_sliding: int) -> list[Any]:
    """Caches whose numbers tell which tokens came before, made without a model."""
    sums = mx.cumsum(mx.array(tokens, dtype=mx.float32)).reshape(1, 1, len(tokens), 1)
    cuttable, state = cast("Any", KVCache)(), cast("Any", ArraysCache)(1)
    cuttable.update_and_fetch(sums, -sums)
    state[0] = sums[:, 0, -1]
    return [cuttable, *[state] * num_sliding]


def settle(store: PrefixStore) -> None:
    """Be idle until nothing waits any more."""
    while store.idle():
        pass


def made_store(folder: str, num_states: int, budget_bytes: int) -> PrefixStore:
    """A store of a model that does not exist, over a folder, on a slow machine."""
    disk = DiskTier(Path(folder), fingerprint="f", budget_bytes=8000, min_free_bytes=0)
    disk.speeds.note_prefill(100, 100.0)
    kinds: list[Any] = [KVCache, *[lambda: ArraysCache(1)] * num_states]
    return PrefixStore(
        lambda: [kind() for kind in kinds], fingerprint="f", budget_bytes=budget_bytes, disk=disk, extent_blocks=3
    )


def fetch_true(store: PrefixStore, tokens: list[int], num_states: int, *, is_damaged: bool) -> None:
    """Fetch a prefix and compare it with what its tokens make it; as long as the probe said, but for damage."""
    expected = store.probe([*tokens, 1])
    caches, found = store.fetch([*tokens, 1])
    assert found == expected or (is_damaged and found < expected)
    if found:
        true = counted(tokens[:found], num_states)
        assert mx.array_equal(caches[0].keys_and_values()[1], true[0].keys_and_values()[1])
        assert all(mx.array_equal(mine[0], theirs[0]) for mine, theirs in zip(caches[1:], true[1:], strict=True))


def damage_one(folder: str) -> None:
    """Change the last byte of a file."""
    for path in sorted(Path(folder).rglob("*.safetensors"))[:1]:
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")


tree = [(1, 1, 1, 1, 1, 1, 1, 1), (1, 1, 2, 2, 2, 2), (1, 1, 1, 1, 1, 2, 2), (3, 3, 3)]
steps = st.tuples(
    st.sampled_from(["keep", "keep", "fetch", "fetch", "release", "idle", "restart", "damage"]),
    st.builds(lambda path, num_blocks: path[:num_blocks], st.sampled_from(tree), st.integers(1, 8)),
)


@pytest.mark.parametrize("num_states", [0, 1])
@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=8, max_size=30), st.integers(600, 8000))
def test_whatever_happens_only_true_prefixes_are_given_out(
    num_states: int, steps: list[tuple[str, tuple[int, ...]]], budget_bytes: int
) -> None:
    """Kept, fetched, evicted, restarted, damaged: a prefix is what its tokens make it, and the books balance."""
    with TemporaryDirectory() as folder:
        store, is_damaged = made_store(folder, num_states, budget_bytes), False
        for what, kinds in steps:
            tokens = [kind for kind in kinds for _ in range(BLOCK_TOKENS)]
            match what:
                case "keep":
                    store.keep(tokens, counted(tokens, num_states))
                case "fetch":
                    fetch_true(store, tokens, num_states, is_damaged=is_damaged)
                case "release":
                    store.release(300)
                case "idle":
                    settle(store)
                case "restart":
                    store.close(flush_seconds=5)
                    store = made_store(folder, num_states, budget_bytes)
                case "damage":
                    damage_one(folder)
                    is_damaged = True
            store.check_integrity()
        store.close()
