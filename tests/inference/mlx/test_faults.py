"""What may go wrong with a real worker process: each fault is one clear error, and the next request is answered."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import mlx.core as mx
import pytest

from pensieve.config.settings import GenerationSettings, MlxSettings, ModelSettings, Settings
from pensieve.errors import LoadFailed, WorkerCrashed
from pensieve.generation import Answer, GenerationEvent, GenerationRequest, PromptProgress, TextDelta, collect
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.folders import read_folder
from pensieve.models.spec import ModelSpec

SETTINGS = Settings(
    model=ModelSettings(context_tokens=30_000),
    generation=GenerationSettings(temperature=0.0),
    mlx=MlxSettings(device="cpu", prefill_tokens=64, prefix_cache_mib=64, disk_cache_mib=64),
)
LONG = "Name the rivers of France. " * 400
WORTH_WRITING = "Name the rivers of France. " * 100


@pytest.fixture
def folder(folder_of: Callable[..., Path], tmp_path: Path) -> Path:
    """A model of this test alone, with a context long enough to be busy with."""
    made = folder_of("llama", num_layers=4, max_position_embeddings=32_768)
    return Path(shutil.copytree(made, tmp_path / "tiny"))


@asynccontextmanager
async def worker_for(spec: ModelSpec, state: Path | None = None) -> AsyncIterator[WorkerBackend]:
    """A worker process that ends with the test."""
    backend = WorkerBackend(spec, SETTINGS, state)
    try:
        yield backend
    finally:
        await backend.aclose()


def request(text: str, max_tokens: int = 4) -> GenerationRequest:
    """One question."""
    return GenerationRequest(id="r", model="m", messages=(say("user", text),), max_tokens=max_tokens)


async def answer(backend: WorkerBackend, text: str = "Where is Paris?", max_tokens: int = 4) -> Answer:
    """The whole answer to one question."""
    return await collect(backend.generate(request(text, max_tokens)))


async def until(backend: WorkerBackend, kind: type[GenerationEvent], text: str, killed: list[int]) -> None:
    """Go on with an answer, and kill the worker at the first event of this kind."""
    async with aclosing(backend.generate(request(text, 20_000))) as events:
        async for event in events:
            if isinstance(event, kind) and not killed:
                killed.append(backend.status.pid)
                os.kill(killed[0], signal.SIGKILL)


@pytest.mark.parametrize("kind", [PromptProgress, TextDelta])
async def test_a_worker_killed_at_work_is_one_error_for_each_request_and_back_for_the_next(
    folder: Path, kind: type[GenerationEvent]
) -> None:
    """While it reads a prompt, and while it speaks; another request on it hears the same, and both may come again."""
    spec = await asyncio.to_thread(lambda: read_folder(folder).spec("tiny"))
    async with worker_for(spec) as backend:
        expected = await answer(backend)
        killed: list[int] = []
        text = LONG if kind is PromptProgress else "Where?"
        results = await asyncio.gather(
            until(backend, kind, text, killed), answer(backend, LONG + "Now.", 9000), return_exceptions=True
        )
        assert [type(each) for each in results] == [WorkerCrashed, WorkerCrashed]
        assert "send the request again" in str(results[0])
        assert (await answer(backend)).message == expected.message
        assert backend.status.pid not in (0, killed[0])
        assert backend.status.num_crashes == 1


async def test_a_worker_killed_while_it_writes_prompts_to_disk_finds_its_place_again(
    folder: Path, tmp_path: Path
) -> None:
    """Whatever lies half written is passed over; the same answer comes, and then from the disk after another death."""
    spec = await asyncio.to_thread(lambda: read_folder(folder).spec("tiny"))
    state = tmp_path / "state"
    async with worker_for(spec, state) as backend:
        expected = await answer(backend, WORTH_WRITING)
        await asyncio.to_thread(wait_for_files, state, 1)
        os.kill(backend.status.pid, signal.SIGKILL)
        again = await eventually(backend, WORTH_WRITING)
        assert again.message == expected.message
        await asyncio.to_thread(wait_for_files, state, 2)
        os.kill(backend.status.pid, signal.SIGKILL)
        third = await eventually(backend, WORTH_WRITING)
        assert third.message == expected.message
        assert third.usage.cached_tokens > 1000


async def eventually(backend: WorkerBackend, text: str) -> Answer:
    """The answer of the next worker; the last one's death may only be noticed by asking."""
    try:
        return await answer(backend, text)
    except WorkerCrashed:
        return await answer(backend, text)


def wait_for_files(folder: Path, count: int) -> None:
    """Return once so many files are there, whole or half."""
    until_seconds = time.monotonic() + 60.0
    while sum(1 for path in folder.rglob("*") if path.is_file()) < count:
        assert time.monotonic() < until_seconds, "nothing was written"
        time.sleep(0.001)


def truncate(folder: Path) -> None:
    """A download that broke off."""
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def take_the_tokenizer(folder: Path) -> None:
    """A file that was forgotten."""
    (folder / "tokenizer.json").unlink()


def rename_the_architecture(folder: Path) -> None:
    """A model of tomorrow."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "tomorrow"}))


def spoil_the_weights(folder: Path) -> None:
    """A conversion that overflowed."""
    path = str(folder / "model.safetensors")
    weights = mx.load(path)
    assert isinstance(weights, dict)
    weights["model.layers.1.mlp.down_proj.weight"] *= float("nan")
    mx.save_safetensors(path, weights, metadata={"format": "mlx"})


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (truncate, "fetch"),
        (take_the_tokenizer, "tokenizer.json"),
        (rename_the_architecture, "architecture tomorrow is not one the MLX engine knows: use a GGUF file"),
        (spoil_the_weights, "no finite numbers: fetch or convert it again"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_one_sentence_and_once_mended_it_answers(
    folder: Path, tmp_path: Path, break_it: Callable[[Path], None], sentence: str
) -> None:
    """All who wait for the load hear it; the host lives, and asks the file again when asked again."""
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    spec = await asyncio.to_thread(lambda: read_folder(folder).spec("tiny"))
    await asyncio.to_thread(break_it, folder)
    async with worker_for(spec) as backend:
        results = await asyncio.gather(answer(backend), answer(backend), return_exceptions=True)
        assert [type(each) for each in results] == [LoadFailed, LoadFailed]
        assert str(results[0]).startswith("model tiny could not be loaded")
        assert sentence in str(results[0])
        await asyncio.to_thread(shutil.copytree, whole, folder, dirs_exist_ok=True)
        reply = await answer(backend)
        assert reply.usage.completion_tokens == 4
