"""Embeddings with a tiny model of random weights: real vectors, limits, and memory that is given back."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from inference.llamacpp.conftest import SETTINGS
from pensieve.config.settings import LlamaCppSettings, WorkerSettings
from pensieve.devices.memory import MemoryReading
from pensieve.errors import ContextOverflow, MemoryShort, Overloaded
from pensieve.inference.llamacpp import embedder
from pensieve.inference.llamacpp.embedder import Embedder
from pensieve.models.metadata import read_gguf

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = msgspec.structs.replace(SETTINGS, llamacpp=LlamaCppSettings(embedding_tokens=32))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def made(plain_model: Path) -> AsyncIterator[Embedder]:
    """Of a model that reads at most 32 tokens at once."""
    embedder = Embedder(read_gguf(plain_model).spec("tiny"), SMALL, num_threads=1)
    yield embedder
    await embedder.aclose()


async def vectors(made: Embedder, *texts: str) -> list[tuple[float, ...]]:
    """What the texts become."""
    packed = (await made.embed(texts)).vectors
    return [struct.unpack(f"<{len(vector) // 4}f", vector) for vector in packed]


async def test_each_text_has_a_vector_of_length_one(made: Embedder) -> None:
    """The same for the same text, another for another; their order is kept."""
    first, second, again = await vectors(made, "abc", "xyz", "abc")
    assert math.isclose(sum(number * number for number in first), 1.0, rel_tol=1e-4)
    assert first == again != second


async def test_tokens_of_all_texts_are_counted(made: Embedder) -> None:
    """As they were read."""
    alone = (await made.embed(("abc",))).prompt_tokens
    assert (await made.embed(("abc", "abc"))).prompt_tokens == 2 * alone > 0


async def test_a_text_that_is_too_long_is_refused_with_both_numbers(made: Embedder) -> None:
    """And the next one is embedded."""
    with pytest.raises(ContextOverflow) as refused:
        await made.embed(("abc " * 30,))
    assert (refused.value.limit_tokens, refused.value.prompt_tokens > 32) == (32, True)
    assert len(await vectors(made, "abc")) == 1


@pytest.fixture(scope="module")
def narrow(plain_model: Path) -> Embedder:
    """For which one request may wait."""
    settings = msgspec.structs.replace(SMALL, worker=WorkerSettings(queue_limit=1))
    return Embedder(read_gguf(plain_model).spec("tiny"), settings, num_threads=1)


async def test_so_many_may_wait_and_no_more(narrow: Embedder) -> None:
    """One more is told to come again."""
    first = asyncio.create_task(narrow.embed(("abc",)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="waiting for their embeddings"):
        await narrow.embed(("abc",))
    assert len((await first).vectors) == 1
    await narrow.aclose()


async def test_memory_is_given_back_when_nobody_asks(made: Embedder) -> None:
    """A worker is weighed when it has nothing to do."""
    await made.embed(("abc",))
    assert made._server is not None
    await asyncio.sleep(embedder.IDLE_SECONDS + 0.2)
    assert made._server is None


@pytest.fixture(scope="module")
def short(plain_model: Path) -> Embedder:
    """Of the same model, on a machine that has no memory left."""
    reading = MemoryReading(2**20, 8 * 2**30)
    return Embedder(read_gguf(plain_model).spec("tiny"), SMALL, num_threads=1, read=lambda: reading)


async def test_without_memory_nothing_is_loaded(short: Embedder) -> None:
    """The machine is not to run out of it for a vector."""
    with pytest.raises(MemoryShort, match="end other programs"):
        await short.embed(("abc",))
    await short.aclose()
