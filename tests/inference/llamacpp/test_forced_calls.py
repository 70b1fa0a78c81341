"""Forced tool calls over random schemas: every one parses, and its arguments are valid."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import pytest
import pytest_asyncio

from pensieve.config.settings import LlamaCppSettings, ModelSettings, Settings
from pensieve.generation import Answer, GenerationRequest, ToolChoice, collect
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import Json, Message, TextPart, ToolCallPart, ToolResultPart, ToolSpec, say
from pensieve.models.metadata import read_gguf
from pensieve.sampling.params import SamplingParams

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = ("path", "line", "count", "unit", "mode", "depth", "title", "owner", "limit", "start")
SETTINGS = Settings(
    model=ModelSettings(context_tokens=1024),
    llamacpp=LlamaCppSettings(parallel=8, pool_tokens=8192, batch_tokens=64, threads=1),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def tiny(marked_model: Path) -> AsyncIterator[WorkerBackend]:
    """A model of random weights in a worker: it says what no other would, and takes milliseconds."""
    worker = WorkerBackend(read_gguf(marked_model).spec("tiny"), SETTINGS)
    yield worker
    await worker.aclose()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend(starter_model: Path) -> AsyncIterator[WorkerBackend]:
    """The starter model in a worker."""
    worker = WorkerBackend(read_gguf(starter_model).spec("smollm2-135m"), SETTINGS)
    yield worker
    await worker.aclose()


def schema(draw: random.Random, depth: int) -> Json:
    """Any schema of a value that ends soon."""
    if depth and draw.random() < 0.2:
        return record(draw, depth - 1)
    if depth and draw.random() < 0.2:
        size = draw.randint(0, 2)
        return {"type": "array", "items": schema(draw, depth - 1), "minItems": size, "maxItems": size + 1}
    least = draw.randint(0, 500)
    values: list[Json] = [
        {"type": "string", "minLength": least % 4, "maxLength": least % 4 + draw.randint(0, 8)},
        {"type": "integer", "minimum": least - 250, "maximum": least + draw.randint(0, 900)},
        {"type": "number", "minimum": 0, "exclusiveMaximum": least + 1},
        {"type": "boolean", "description": draw.choice(WORDS)},
        {"enum": draw.sample([*WORDS, 7, None, True, 'a "quoted" word'], 3)},
        {"type": "string", "pattern": draw.choice(["^[a-z]{1,4}$", "^v[0-9]{1,3}$", "^(yes|no)$"])},
        {"const": draw.choice([*WORDS, 4, {"a": [1]}])},
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"enum": [draw.choice(WORDS)]}]},
        {"type": "null"},
    ]
    return draw.choice(values)


def record(draw: random.Random, depth: int) -> Json:
    """Any schema of an object of few keys."""
    names = draw.sample(WORDS, draw.randint(1, 2))
    required = draw.sample(names, draw.randint(0, len(names)))
    properties = {name: schema(draw, depth) for name in names}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


async def called(backend: WorkerBackend, seed: int, depth: int) -> tuple[Answer, Json]:
    """The answer to a forced call of a tool with a random schema."""
    parameters = record(random.Random(seed), depth)
    request = GenerationRequest(
        id="r",
        model="m",
        messages=(say("user", "Use the tool."),),
        tools=(ToolSpec("Act", parameters, "Acts."),),
        tool_choice=ToolChoice("tool", "Act", is_parallel_allowed=False),
        sampling=SamplingParams(temperature=0.8, seed=seed),
        max_tokens=400,
    )
    return await collect(backend.generate(request)), parameters


def check(answer: Answer, parameters: Json) -> None:
    """One whole call whose arguments are valid."""
    (call,) = answer.message.parts
    assert isinstance(call, ToolCallPart)
    assert (call.name, answer.reason) == ("Act", "tool_calls")
    jsonschema.validate(call.arguments, parameters)


async def check_all(backend: WorkerBackend, seeds: range, depth: int) -> None:
    """Eight at a time."""
    for first in range(seeds.start, seeds.stop, 8):
        for answer, parameters in await asyncio.gather(
            *(called(backend, seed, depth) for seed in range(first, min(first + 8, seeds.stop)))
        ):
            check(answer, parameters)


async def test_forced_calls_of_a_tiny_model_obey_random_schemas(tiny: WorkerBackend) -> None:
    """Forty of them."""
    await check_all(tiny, range(40), depth=2)


@pytest.mark.model
async def test_forced_calls_obey_random_schemas(backend: WorkerBackend) -> None:
    """Sixteen of them, of schemas that are not deep: a model of real size says more to each."""
    await check_all(backend, range(16), depth=1)


def turn(number: int) -> tuple[Message, ...]:
    """A turn that calls the tool, for a small model to do the same."""
    call, result = (
        ToolCallPart(str(number), "Act", {"start": number}),
        ToolResultPart(str(number), (TextPart("Done."),)),
    )
    return say("user", f"Act, start {number}."), Message("assistant", (call,)), Message("user", (result,))


@pytest.mark.model
async def test_strict_calls_obey_their_schema(backend: WorkerBackend) -> None:
    """Whenever the model chooses to call; what it said before is text."""
    schema = record(random.Random(3), 1)
    request = GenerationRequest(
        id="r",
        model="m",
        messages=tuple(message for number in range(3) for message in turn(number))[:-2],
        tools=(ToolSpec("Act", schema, "Acts.", is_strict=True),),
        tool_choice=ToolChoice(is_parallel_allowed=False),
        sampling=SamplingParams(temperature=0.0),
        max_tokens=200,
    )
    check(await collect(backend.generate(request)), schema)


@pytest.mark.model
@pytest.mark.stress
@pytest.mark.timeout(3600)
async def test_a_thousand_forced_calls_obey_random_schemas(backend: WorkerBackend) -> None:
    """Every one of them."""
    await check_all(backend, range(1000, 2000), depth=2)
