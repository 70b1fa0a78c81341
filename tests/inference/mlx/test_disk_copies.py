"""The prefix store over a real folder: what is worth keeping survives a restart, and a bad file is only a miss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from greedy import greedy, prompt, read
from pensieve.inference.mlx.disk_tier import DiskTier
from pensieve.inference.mlx.prefix_store import PrefixStore
from tiny_models import make_tiny_model

FAMILIES = ["llama", "gpt_oss", "gemma3", "mamba2", "qwen3_next", "deepseek_v3"]
MIB = 2**20


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Tiny models by family and number format, each made once."""
    made: dict[tuple[str, str], Any] = {}

    def load(family: str, dtype: str = "float32") -> Any:
        if (family, dtype) not in made:
            num_layers = 4 if family in {"qwen3_next", "gemma3"} else 2
            folder = make_tiny_model(tmp_path_factory.mktemp(family), family, num_layers=num_layers, dtype=dtype)
            made[family, dtype] = load_model(folder)[0]
        return made[family, dtype]

    return load


def store_over(folder: Path, model: Any, *, budget_bytes: int = 64 * MIB, disk_bytes: int = 64 * MIB) -> PrefixStore:
    """A store whose machine computes slowly, so that files are worth reading."""
    disk = DiskTier(folder, fingerprint="tiny", budget_bytes=disk_bytes, min_free_bytes=0)
    store = PrefixStore(
        lambda: make_prompt_cache(model), fingerprint="tiny", budget_bytes=budget_bytes, disk=disk, extent_blocks=4
    )
    store.note_prefill(100, 10.0)
    return store


def remember(store: PrefixStore, model: Any, tokens: list[int]) -> None:
    """Read a prompt from nothing, keep it, and let the store write while idle."""
    caches = make_prompt_cache(model)
    read(model, tokens, caches)
    store.keep(tokens, caches)
    settle(store)


def settle(store: PrefixStore) -> None:
    """Be idle until nothing waits any more."""
    while store.idle():
        pass
    store.check_integrity()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_survives_a_restart(load: Callable[..., Any], tmp_path: Path, family: str) -> None:
    """The next store finds it on disk and goes on with the same greedy tokens; then it is in memory again."""
    model, tokens = load(family), prompt(500)
    first = store_over(tmp_path, model)
    remember(first, model, tokens[:448])
    first.close()
    store = store_over(tmp_path, model)
    assert store.num_bytes == 0
    assert store.probe(tokens) == 448
    caches, found = store.fetch(tokens)
    assert found == 448
    assert greedy(model, tokens[448:], caches) == greedy(model, tokens, make_prompt_cache(model))
    store.check_integrity()
    assert store.stats().disk_hit_tokens == 448
    caches, found = store.fetch(tokens)
    assert (found, store.stats().disk_hit_tokens) == (448, 448)
    assert greedy(model, tokens[448:], caches) == greedy(model, tokens, make_prompt_cache(model))
    settle(store)
    stats = store.stats().disk
    assert stats is not None
    assert stats.written_bytes == 0
    store.close()


@pytest.mark.parametrize("family", ["llama", "gemma3", "mamba2"])
def test_bfloat16_survives_a_restart_bit_by_bit(load: Callable[..., Any], tmp_path: Path, family: str) -> None:
    """Numbers that numpy does not know travel as what they are."""
    model, tokens = load(family, "bfloat16"), prompt(300)
    first = store_over(tmp_path, model)
    remember(first, model, tokens[:256])
    from_memory = greedy(model, tokens[256:], first.fetch(tokens)[0])
    first.close()
    second = store_over(tmp_path, model)
    caches, found = second.fetch(tokens)
    assert found == 256
    assert greedy(model, tokens[256:], caches) == from_memory
    second.close()


def test_a_prompt_that_parts_inside_a_file_reads_only_what_it_shares(load: Callable[..., Any], tmp_path: Path) -> None:
    """The file's first blocks serve another prompt, behind blocks that memory holds already."""
    model = load("llama")
    first = store_over(tmp_path, model)
    remember(first, model, prompt(512))
    first.close()
    store = store_over(tmp_path, model)
    remember(store, model, prompt(64))
    other = prompt(330) + prompt(60, seed=5)
    caches, found = store.fetch(other)
    assert (found, store.stats().disk_hit_tokens) == (320, 256)
    assert greedy(model, other[320:], caches) == greedy(model, other, make_prompt_cache(model))
    caches, found = store.fetch(prompt(520))
    assert (found, store.stats().disk_hit_tokens) == (512, 448)
    assert greedy(model, prompt(520)[512:], caches) == greedy(model, prompt(520), make_prompt_cache(model))
    store.close()


def test_a_state_that_memory_let_go_is_read_alone(load: Callable[..., Any], tmp_path: Path) -> None:
    """The blocks of the full layers are still held; only the boundary's file is read."""
    model = load("gpt_oss")
    store = store_over(tmp_path, model)
    remember(store, model, prompt(256))
    boundary = next(iter(store._states))
    store._evict([boundary])
    caches, found = store.fetch(prompt(260))
    assert found == 256
    assert greedy(model, prompt(260)[256:], caches) == greedy(model, prompt(260), make_prompt_cache(model))
    store.check_integrity()
    store.close()


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
def test_a_damaged_file_is_a_miss_and_goes(load: Callable[..., Any], tmp_path: Path, family: str) -> None:
    """One byte flipped in each file in turn: the answer is the same, only less of it comes from disk."""
    model, tokens = load(family), prompt(520)
    first = store_over(tmp_path, model)
    remember(first, model, tokens[:512])
    first.close()
    for path in sorted(tmp_path.rglob("*.safetensors")):
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        store = store_over(tmp_path, model)
        caches, found = store.fetch(tokens)
        assert found < 512
        assert greedy(model, tokens[found:], caches) == greedy(model, tokens, make_prompt_cache(model))
        remember(store, model, tokens[:512])
        stats = store.stats().disk
        assert stats is not None
        assert stats.num_corrupt == 1
        store.close()
    assert store_over(tmp_path, model).probe(tokens) == 512


def test_a_file_of_other_arrays_than_the_models_is_a_miss(load: Callable[..., Any], tmp_path: Path) -> None:
    """A model of another shape under the same fingerprint gets nothing from it."""
    first = store_over(tmp_path, load("llama"))
    remember(first, load("llama"), prompt(256))
    first.close()
    store = store_over(tmp_path, load("deepseek_v3"))
    remember(store, load("deepseek_v3"), prompt(64, seed=9))
    assert store.fetch(prompt(260))[1] == 0
    stats = store.stats().disk
    assert stats is not None
    assert stats.num_corrupt == 1
    store.close()


def test_nothing_is_read_or_written_where_computing_is_quicker(load: Callable[..., Any], tmp_path: Path) -> None:
    """The same files serve a slow machine and are left alone by a fast one, which writes none either."""
    model = load("llama")
    first = store_over(tmp_path, model)
    remember(first, model, prompt(512))
    first.close()
    store = store_over(tmp_path, model)
    store.note_prefill(10**9, 1.0)
    assert store.probe(prompt(520)) == 0
    assert store.fetch(prompt(520))[1] == 0
    assert store.stats().num_slower == 2
    remember(store, model, prompt(512, seed=3))
    stats = store.stats().disk
    assert stats is not None
    assert (stats.read_bytes, stats.written_bytes) == (0, 0)
    store.close()


def test_only_what_came_again_or_is_long_goes_to_disk(load: Callable[..., Any], tmp_path: Path) -> None:
    """A short prompt is written after its second use."""
    model = load("llama")
    store = store_over(tmp_path, model)
    remember(store, model, prompt(128))
    assert list(tmp_path.rglob("*.safetensors")) == []
    store.fetch(prompt(140))
    settle(store)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    store.close()


def test_closing_writes_what_waits_if_there_is_time(load: Callable[..., Any], tmp_path: Path) -> None:
    """Without time nothing is begun."""
    model, num_files = load("llama"), []
    for seconds in (0.0, 60.0):
        store = store_over(tmp_path, model)
        caches = make_prompt_cache(model)
        read(model, prompt(512), caches)
        store.keep(prompt(512), caches)
        store.close(flush_seconds=seconds)
        num_files.append(len(list(tmp_path.rglob("*.safetensors"))))
    assert num_files == [0, 2]


def test_a_prompt_too_large_for_memory_is_still_served_from_disk(load: Callable[..., Any], tmp_path: Path) -> None:
    """The caches are handed out whole though the store can keep only their beginning."""
    model = load("llama")
    first = store_over(tmp_path, model)
    remember(first, model, prompt(512))
    first.close()
    store = store_over(tmp_path, model, budget_bytes=first.stats().evicted_bytes + 3 * 64 * 512)
    caches, found = store.fetch(prompt(520))
    assert found == 512
    assert greedy(model, prompt(520)[512:], caches) == greedy(model, prompt(520), make_prompt_cache(model))
    store.check_integrity()
    store.close()
