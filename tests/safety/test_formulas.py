"""What models are predicted to take, against what they really take: weights, and caches of four lengths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model

from pensieve.config.settings import LlamaCppSettings, ModelSettings, Settings
from pensieve.devices.processes import read_process
from pensieve.generation import GenerationRequest
from pensieve.inference.mlx.architectures import make_caches, num_bytes
from pensieve.inference.prediction import predict
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.registry import Registry
from pensieve.models.spec import ModelSpec
from tiny_models import FAMILIES, make_tiny_model

SMALLEST = 256
CONTEXTS = (1024, 2048, 4096, 8192)


class Held(NamedTuple):
    """What a worker holds: all that is its own, all that it maps, and of that the pages of its weights' file."""

    private_bytes: int
    mapped_bytes: int
    weight_bytes: int


@asynccontextmanager
async def loaded(spec: ModelSpec, context_tokens: int) -> AsyncIterator[Held]:
    """What a worker holds that has loaded the model with that context, and nothing else."""
    engine = LlamaCppSettings(pool_tokens=context_tokens, prompt_cache_mib=0)
    backend = WorkerBackend(spec, Settings(model=ModelSettings(context_tokens=context_tokens), llamacpp=engine))
    try:
        question = GenerationRequest(id="r", model="m", messages=(say("user", "hi"),))
        await backend.count_tokens(question)
        memory = read_process(backend.status.pid)
        assert memory is not None
        yield Held(memory.private_bytes, memory.mapped_bytes, file_bytes(backend.status.pid, Path(spec.location)))
    finally:
        await backend.aclose()


def file_bytes(pid: int, file: Path) -> int:
    """Pages of that file that are in the process's memory (proc(5), smaps)."""
    found, is_of_file, real = 0, False, str(file.resolve())
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split(" ", 1)[0]:
            is_of_file = line.endswith(real)
        elif is_of_file and name == "Rss":
            found += int(value.split()[0]) * 1024
    return found


@pytest.mark.model
async def test_llama_cpp_takes_what_was_predicted(starter_model: Path) -> None:
    """The weights are the pages of their file; each context adds its cache to the smallest one's; the rest is fixed."""
    spec = await asyncio.to_thread(Registry(starter_model.parent / "none").find, str(starter_model))
    predicted = predict(spec)
    async with loaded(spec, SMALLEST) as small:
        pass
    assert error("llama.cpp, weights", predicted.weight_bytes, small.weight_bytes) < 0.1
    fixed = small.private_bytes + small.mapped_bytes - small.weight_bytes - predicted.cache_bytes(SMALLEST)
    assert error("llama.cpp, the worker's own", predicted.process_bytes, fixed) < 0.4  # more with more threads
    for context_tokens in CONTEXTS:
        async with loaded(spec, context_tokens) as held:
            measured = held.private_bytes - small.private_bytes
        grown = predicted.cache_bytes(context_tokens) - predicted.cache_bytes(SMALLEST)
        assert error(f"llama.cpp, cache of {SMALLEST} to {context_tokens} tokens", grown, measured) < 0.1
        assert held.private_bytes + held.mapped_bytes < predicted.at(context_tokens)


DTYPES = {"smollm": "float16"}
"""One in half precision, which MLX computes slowly on a processor, and experts not at all; the others in float32."""
TINY_CONTEXTS = (256, 512, 1024, 2048)
WINDOWED = ("gemma3", "mistral", "gpt_oss")


@pytest.mark.parametrize("family", FAMILIES)
def test_mlx_takes_what_was_predicted(tmp_path: Path, family: str) -> None:
    """Weights and caches, array by array, of every family: full, sliding, latent and recurrent layers."""
    changes: dict[str, Any] = {"sliding_window": 512} if family in WINDOWED else {}
    folder = make_tiny_model(tmp_path / "model", family, dtype=DTYPES.get(family, "float32"), **changes)
    spec = Registry(tmp_path / "none").find(str(folder))
    model, _ = load_model(folder)
    assert error(f"mlx, weights of {family}", predict(spec).weight_bytes, num_bytes(model)) < 0.1
    assert not predict(spec).is_estimated
    for context_tokens in TINY_CONTEXTS:
        caches = make_caches(model)
        # Windows hold a piece of the prompt more until the first token is decoded.
        for num_tokens in (*[256] * (context_tokens // 256 - 1), 254, 1, 1):
            mx.eval(model(mx.zeros((1, num_tokens), dtype=mx.int32), cache=caches))
        measured = sum(cache.nbytes for cache in caches)
        assert (
            error(f"mlx, {family}, {context_tokens} tokens", predict(spec).cache_bytes(context_tokens), measured) < 0.1
        )


def error(what: str, predicted: int, measured: int) -> float:
    """How far off the prediction is, as a part of what was measured; printed."""
    off = predicted / measured - 1
    print(f"{what}: predicted {predicted:,}, measured {measured:,} bytes: {off:+.1%}")
    return abs(off)
