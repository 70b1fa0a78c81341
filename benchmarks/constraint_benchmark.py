"""What a constraint costs while an answer is decoded: tokens per second with and without one, in one run.

The same prompt and as many tokens; rounds alternate and medians are compared. A model of random weights is the harder
one for masks: its steps are short, and whatever it says is unlikely to be what it would have said.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

import report
import rivals
from own_worker import request_of, text_of
from pensieve.config.settings import GenerationSettings, ModelSettings, Settings
from pensieve.generation import Finished
from pensieve.inference.worker.host import WorkerBackend
from pensieve.models.metadata import read_gguf
from pensieve.models.registry import Registry
from pensieve.models.spec import ModelSpec
from random_models import LABEL, SHAPES, prompt
from serving import model_file

MOST_SLOWDOWN = 0.10
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": "string", "pattern": "^[a-z]{3,12}@[a-z]{3,12}\\.org$"},
        "about": {"type": "string", "minLength": 40, "maxLength": 400},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 4},
    },
    "required": ["name", "age", "mail", "about", "tags"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {"type": "array", "items": PERSON, "minItems": 40}
"""Long enough for any number of tokens that is asked for."""


async def tokens_per_second(backend: WorkerBackend, text: str, num_tokens: int, schema: dict[str, Any] | None) -> float:
    """Of one answer, from its first token to its last; 0 where it ended early."""
    request = msgspec.structs.replace(request_of(text, num_tokens), output_schema=schema)
    async with aclosing(backend.generate(request)) as events:
        async for event in events:
            if isinstance(event, Finished) and event.timings is not None:
                if event.usage.completion_tokens < num_tokens:
                    return 0.0
                return (event.usage.completion_tokens - 1) / event.timings.decode_seconds
    raise AssertionError("the answer had no end")


async def measure(backend: WorkerBackend, text: str, num_tokens: int, num_rounds: int) -> report.Row:
    """Rounds of both, the first of each thrown away."""
    bound: list[float] = []
    free: list[float] = []
    for number in range(num_rounds + 1):
        pair = [(bound, SCHEMA), (free, None)]
        random.Random(number).shuffle(pair)
        for found, schema in pair:
            speed = await tokens_per_second(backend, text, num_tokens, schema)
            if number and speed:
                found.append(speed)
    ours, theirs = report.median(bound), report.median(free)
    print(f"bound {ours:.1f} tokens/s, free {theirs:.1f}, {min(len(bound), len(free))} rounds")
    num_valid = min(len(bound), len(free))
    return report.Row(f"{num_tokens} tokens", "tokens/s", ours, theirs, num_valid, 1.0 - MOST_SLOWDOWN)


async def run(spec: ModelSpec, home: Path, text: str, arguments: argparse.Namespace) -> list[report.Row]:
    """The rows of one model, in a worker of its own."""
    generation = GenerationSettings(repetition_guard="off")  # greedy answers of such models go round in circles
    settings = Settings(model=ModelSettings(context_tokens=4096), generation=generation)
    backend = WorkerBackend(spec, settings, home)
    try:
        return [await measure(backend, text, size, arguments.rounds) for size in arguments.tokens]
    finally:
        await backend.aclose()


def models(arguments: argparse.Namespace, home: Path) -> Iterator[tuple[str, str, ModelSpec, str]]:
    """Short name, name for people, model and prompt of each engine that was asked for."""
    if arguments.only != "gguf":
        shape = arguments.shape
        made = rivals.made_model(shape, arguments.folder or home / shape)
        yield f"mlx-{shape}", f"MLX, {shape}, {LABEL}", Registry(home).find(str(made)), prompt(200, "constraint")
    if arguments.only != "mlx":
        spec = read_gguf(model_file()).spec("smollm2-135m")
        yield "gguf-smollm2-135m", "llama.cpp, SmolLM2-135M", spec, text_of(60, "c")


def main() -> None:
    """Run, print, and write a table for each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny-phi-3")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 192])
    parser.add_argument("--only", choices=("mlx", "gguf"))
    parser.add_argument("--folder", type=Path, help="where the model of random weights is made, or is already")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        for short, name, spec, text in models(arguments, Path(home)):
            rows = asyncio.run(run(spec, Path(home), text, arguments))
            title = f"Decoding with and without a JSON schema ({name})"
            table = report.table(rows, "with", "without")
            print(title, table, sep="\n\n")
            report.write(arguments.out, f"constraint-{short}", title, table, {"rows": [row._asdict() for row in rows]})


if __name__ == "__main__":
    main()
