"""What models are predicted to take, against what they really take: weights, and caches of four lengths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model

from pensieve.config.settings import LlamaCppSettings, ModelSettings, Settings
from pensieve.devices.processes import ProcessMemory, read_process
from pensieve.generation import GenerationRequest
from pensieve.inference.mlx.architectures import make_caches, num_bytes
from pensieve.inference.prediction import predict
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.registry import Registry
from pensieve.models.spec import ModelSpec
from tiny_models import make_tiny_model

CONTEXTS = (1024, 2048, 4096, 8192)


@asynccontextmanager
async def loaded(spec: ModelSpec, context_tokens: int) -> AsyncIterator[ProcessMemory]:
    """What a worker holds that has loaded the model with that context, and nothing else."""
    engine = LlamaCppSettings(pool_tokens=context_tokens, prompt_cache_mib=0)
    backend = WorkerBackend(spec, Settings(model=ModelSettings(context_tokens=context_tokens), llamacpp=engine))
    try:
        question = GenerationRequest(id="r", model="m", messages=(say("user", "hi"),))
        await backend.count_tokens(question)
        held = read_process(backend.status.pid)
        assert held is not None
        yield held
    finally:
        await backend.aclose()


@pytest.mark.model
async def test_llama_cpp_takes_what_was_predicted(starter_model: Path) -> None:
    """The weights are mapped; each context adds its cache to the one before."""
    spec = await asyncio.to_thread(Registry(starter_model.parent / "none").find, str(starter_model))
    held: list[ProcessMemory] = []
    for context_tokens in CONTEXTS:
        async with loaded(spec, context_tokens) as memory:
            held.append(memory)
    for (short, less), (long, more) in zip(
        zip(CONTEXTS, held, strict=True), zip(CONTEXTS[1:], held[1:], strict=False), strict=False
    ):
        predicted = predict(spec).cache_bytes(long) - predict(spec).cache_bytes(short)
        measured = more.private_bytes - less.private_bytes
        print(f"llama.cpp, cache of {short} to {long} tokens: predicted {predicted:,}, measured {measured:,} bytes")
        assert measured == pytest.approx(predicted, rel=0.1)
    libraries_bytes = held[0].mapped_bytes - spec.weight_bytes
    print(f"llama.cpp, weights: predicted {spec.weight_bytes:,} bytes, mapped {held[0].mapped_bytes:,} with code")
    assert 0 < libraries_bytes < 60_000_000
    assert held[-1].resident_bytes < predict(spec).at(CONTEXTS[-1])


def test_mlx_takes_what_was_predicted(tmp_path: Path) -> None:
    """Weights and caches, array by array."""
    folder = make_tiny_model(tmp_path / "model", "llama")
    spec = Registry(tmp_path / "none").find(str(folder))
    model, _ = load_model(folder)
    weight_bytes = num_bytes(model)
    assert weight_bytes == pytest.approx(spec.weight_bytes, rel=0.1)
    for context_tokens in (256, 512, 1024, 2048):
        caches = make_caches(model)
        mx.eval(model(mx.zeros((1, context_tokens), dtype=mx.int32), cache=caches))
        element_bytes = caches[0].state[0].dtype.size
        measured = sum(cache.nbytes for cache in caches) * 2 // element_bytes
        predicted = predict(spec).cache_bytes(context_tokens)
        print(f"mlx, cache of {context_tokens} tokens: predicted {predicted:,}, measured {measured:,} bytes")
        assert measured == pytest.approx(predicted, rel=0.1)
