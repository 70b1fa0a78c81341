"""How long a running answer stands still while another request's prompt of 4,000 tokens is rendered and read.

Before: the whole prompt is one step. After: as it is, in pieces that running answers can wait for. Both run in one
process, on the engine's own door, on random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import report
import rivals
from pensieve.config.settings import MlxSettings, Settings
from pensieve.generation import GenerationRequest, TextDelta
from pensieve.inference.mlx import engine, reading
from pensieve.inference.mlx.backend import MlxBackend
from pensieve.messages import say
from pensieve.models.registry import Registry
from pensieve.sampling.params import SamplingParams
from random_models import LABEL, SHAPES, prompt

GAP_SECONDS = {"before": 3600.0, "after": reading.GAP_SECONDS}


async def arrivals(backend: MlxBackend, text: str, max_tokens: int) -> list[float]:
    """When the pieces of one greedy answer came."""
    request = GenerationRequest(
        id="r",
        model="m",
        messages=(say("user", text),),
        max_tokens=max_tokens,
        sampling=SamplingParams(temperature=0.0),
    )
    async with aclosing(backend.generate(request)) as events:
        return [time.perf_counter() async for event in events if isinstance(event, TextDelta)]


async def longest_gap(backend: MlxBackend, prompt_tokens: int, answer_tokens: int, seed: int) -> tuple[float, float]:
    """Seconds of the longest silence of a running answer while nothing else runs, and while the prompt is read."""
    running = asyncio.create_task(arrivals(backend, prompt(32, f"running {seed}"), answer_tokens))
    await asyncio.sleep(1.0)
    asked_at = time.perf_counter()
    other = await arrivals(backend, prompt(prompt_tokens, f"reading {seed}"), 2)
    gaps = list(itertools.pairwise(await running))
    if gaps[-1][1] < other[0]:
        raise RuntimeError("the answer ended before the prompt was read: ask for a longer one with --answer-tokens")
    alone = [later - earlier for earlier, later in gaps if later < asked_at]
    beside = [later - earlier for earlier, later in gaps if later > asked_at and earlier < other[0]]
    return max(alone), max(beside)


async def measured(backend: MlxBackend, arguments: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """All rounds, taking turns; the first one warms up."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in GAP_SECONDS}
    for seed, name in itertools.product(range(arguments.rounds + 1), GAP_SECONDS):
        for module in (reading, engine):
            vars(module)["GAP_SECONDS"] = GAP_SECONDS[name]
        pair = await longest_gap(backend, arguments.prompt_tokens, arguments.answer_tokens, seed * 2 + len(name))
        if seed:
            found[name].append(pair)
    return found


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny-phi-3")
    parser.add_argument("--prompt-tokens", type=int, default=4000)
    parser.add_argument("--answer-tokens", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the model is made, or is already")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = rivals.made_model(arguments.shape, arguments.folder or Path(temporary) / arguments.shape)
        backend = MlxBackend(Registry(Path(temporary)).find(str(folder)), Settings(mlx=MlxSettings(disk_cache_mib=0)))
        try:
            found = asyncio.run(measured(backend, arguments))
        finally:
            asyncio.run(backend.aclose())
    lines = ["| the prompt is read | longest gap alone | longest gap beside it | rounds |", "|---|---|---|---|"]
    for name, words in (("before", "in one step (before)"), ("after", "in pieces (after)")):
        alone, beside = (report.median([pair[place] for pair in found[name]]) * 1000 for place in (0, 1))
        lines.append(f"| {words} | {alone:.0f} ms | {beside:.0f} ms | {len(found[name])} |")
    text = "\n".join(lines)
    print(text)
    title = f"A prompt of {arguments.prompt_tokens} tokens beside a running answer, {arguments.shape}, {LABEL}"
    report.write(arguments.out, f"gap-{arguments.shape}", title, text, {"gaps": found})


if __name__ == "__main__":
    main()
