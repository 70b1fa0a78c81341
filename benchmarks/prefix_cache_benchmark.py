"""What it costs to keep a prompt and to have it again, from memory and from disk, beside computing it anew.

The model has random weights in a real shape: as fast as a real one. Prints medians, and what the index itself takes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.llama import Model, ModelArgs

from pensieve.inference.mlx.disk_tier import DiskTier
from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS, PrefixIndex, block_digests
from pensieve.inference.mlx.prefix_store import PrefixStore

CHUNK_TOKENS = 2048
BUDGET_BYTES = 2**40
VOCABULARY = 1024
"""Small: the scores of a whole chunk are no part of what is measured."""
SHAPES: dict[str, tuple[int, int, int, int]] = {
    "phi-3-mini": (32, 3072, 32, 32),
    "llama-1b": (16, 2048, 32, 8),
    "small": (4, 256, 8, 4),
}
"""Layers, width, heads, heads of keys and values."""


def random_model(shape: str) -> Any:
    """A llama of that shape, in bfloat16 on a GPU, in float32 on a CPU."""
    num_layers, width, num_heads, num_kv_heads = SHAPES[shape]
    make: Any = ModelArgs
    model: Any = Model(
        make(
            model_type="llama",
            hidden_size=width,
            num_hidden_layers=num_layers,
            intermediate_size=width * 8 // 3,
            num_attention_heads=num_heads,
            num_key_value_heads=num_kv_heads,
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
        )
    )
    if mx.default_device() == mx.gpu:
        model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    return model


def prefill(model: Any, tokens: list[int]) -> list[Any]:
    """Compute a prompt in chunks; its caches."""
    caches: list[Any] = make_prompt_cache(model)
    for start in range(0, len(tokens), CHUNK_TOKENS):
        mx.eval(model(mx.array([tokens[start : start + CHUNK_TOKENS]]), cache=caches)[:, -1])
    return caches


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, until every array is there."""
    mx.synchronize()
    began = time.perf_counter()
    work()
    mx.synchronize()
    return time.perf_counter() - began


def show(name: str, taken: float, computing: float, note: str = "") -> None:
    """One line of the table."""
    print(f"{name:34}{taken * 1000:12.1f} ms{taken / computing:10.2%}   {note}")


def measure_memory(model: Any, tokens: list[int], rounds: int) -> float:
    """Print keeping and fetching from memory; returns the seconds of computing."""
    prefill(model, tokens)
    computing = median(seconds(lambda: prefill(model, tokens)) for _ in range(rounds))
    caches = prefill(model, tokens)
    keeping, fetching = [], []
    for _ in range(rounds):
        store = PrefixStore(lambda: make_prompt_cache(model), fingerprint="benchmark", budget_bytes=BUDGET_BYTES)
        keeping.append(seconds(lambda store=store: store.keep(tokens, caches)))  # type: ignore[misc]
        fetching.append(seconds(lambda store=store: store.fetch([*tokens, 1])))  # type: ignore[misc]
    show("computing", computing, computing, f"{len(tokens) / computing:.0f} tokens/s")
    show("keeping", median(keeping), computing, f"{store.num_bytes / 2**20:.0f} MiB")
    show("fetching from memory", median(fetching), computing)
    return computing


def measure_disk(model: Any, tokens: list[int], computing: float, root: Path) -> None:
    """Print writing, and a fetch after a restart: read where that is expected to be quicker."""
    caches = prefill(model, tokens)
    first = opened(model, root)
    first.note_prefill(len(tokens), computing)
    first.keep(tokens, caches)
    writing = seconds(lambda: first.close(flush_seconds=600))
    second = opened(model, root)
    second.note_prefill(len(tokens), computing)
    found: list[int] = []
    fetching = seconds(lambda: found.append(second.fetch([*tokens, 1])[1]))
    stats = second.stats()
    assert stats.disk is not None
    show("copying out and writing", writing, computing, f"{stats.disk.num_bytes / 2**20:.0f} MiB")
    speed = stats.disk.read_bytes_per_second / 2**20
    show("fetching after a restart", fetching, computing, f"{found[0]} of {len(tokens)} tokens, {speed:.0f} MiB/s")
    second.close()


def opened(model: Any, root: Path) -> PrefixStore:
    """A store over a folder, once it has measured the disk."""
    disk = DiskTier(root, fingerprint="benchmark", budget_bytes=BUDGET_BYTES)
    disk.wait(60)
    return PrefixStore(lambda: make_prompt_cache(model), fingerprint="benchmark", budget_bytes=BUDGET_BYTES, disk=disk)


def index_bytes_per_token(tokens: list[int]) -> float:
    """What the books take for a prompt, without its arrays."""
    tracemalloc.start()
    index = PrefixIndex(budget_bytes=BUDGET_BYTES, is_trimmable=True)
    names = list(block_digests(b"", tokens, len(tokens) // BLOCK_TOKENS))
    index.append(index.match(names), names, block_bytes=1)
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return num_bytes / len(tokens)


def main() -> None:
    """Print the table."""
    is_gpu = mx.default_device() == mx.gpu
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="phi-3-mini" if is_gpu else "small")
    parser.add_argument("--tokens", type=int, default=16_384 if is_gpu else 1024)
    parser.add_argument("--disk-tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5 if is_gpu else 2)
    parser.add_argument("--folder", type=Path, help="where the files of the disk tier go; a temporary folder otherwise")
    arguments = parser.parse_args()
    model = random_model(arguments.shape)
    tokens = random.Random(0).choices(range(VOCABULARY), k=arguments.tokens // BLOCK_TOKENS * BLOCK_TOKENS)
    print(f"{arguments.shape} with random weights, {len(tokens)} tokens, {mx.default_device()}")
    computing = measure_memory(model, tokens, arguments.rounds)
    part = tokens[: arguments.disk_tokens]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(f"the first {len(part)} tokens, beside computing them")
        measure_disk(model, part, computing * len(part) / len(tokens), Path(folder))
    print(f"the index takes {index_bytes_per_token(tokens):.2f} bytes a token")


if __name__ == "__main__":
    main()
