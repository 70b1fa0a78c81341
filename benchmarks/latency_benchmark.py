"""Our worker beside the bare engine: cold load, first token, and tokens per second by prompt length and streams.

Takes a GGUF file (llama.cpp) or a folder of safetensors (MLX). Both answer prompts of the same number of tokens in
turn; no prompt comes twice, except where the warm first token is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import report
from bare_engines import BareEngine, Timed, open_bare, prompt_like
from own_worker import OwnWorker, text_of
from pensieve.config.settings import Settings
from pensieve.models.registry import Registry
from serving import model_file

Speeds = dict[str, list[tuple[float, float]]]
"""Scenario -> ours and the bare engine's, for each round."""


def total_speed(answers: Sequence[tuple[Timed, int]]) -> float:
    """Tokens per second of all answers together."""
    return sum(num_tokens for _, num_tokens in answers) / max(timed.whole_seconds for timed, _ in answers)


class Pair:
    """Both sides with the same model, asked in turn."""

    def __init__(self, worker: OwnWorker, bare: BareEngine) -> None:
        self.worker = worker
        self.bare = bare

    def answers(self, texts: Sequence[str], max_tokens: int) -> tuple[list[tuple[Timed, int]], list[tuple[Timed, int]]]:
        """Both sides' answers, each with its number of tokens."""
        served = self.worker.answer(texts, max_tokens)
        usages = [usage for _, usage in served]
        sizes = [(usage.prompt_tokens, usage.cached_tokens) for usage in usages]
        prompts = [prompt_like(self.bare, text, *size) for text, size in zip(texts, sizes, strict=True)]
        ours = [(timed, usage.completion_tokens) for timed, usage in served]
        theirs = [(timed, len(timed.token_seconds)) for timed in self.bare.answer(prompts, max_tokens)]
        return ours, theirs


def by_length(pair: Pair, lengths: Sequence[int], max_tokens: int, round_number: int) -> dict[str, tuple[float, float]]:
    """First token of a new prompt of each length, in milliseconds."""
    result = {}
    for length in lengths:
        ours, theirs = pair.answers([text_of(length, f"{round_number} {length}")], max_tokens)
        result[f"first token, {length:,} words"] = (ours[0][0].first_seconds * 1e3, theirs[0][0].first_seconds * 1e3)
    return result


def by_streams(
    pair: Pair, streams: Sequence[int], max_tokens: int, round_number: int
) -> dict[str, tuple[float, float]]:
    """Tokens per second of so many answers at once, their short prompts included."""
    result = {}
    for num_streams in streams:
        texts = [text_of(24, f"{round_number} {num_streams} {stream}") for stream in range(num_streams)]
        ours, theirs = pair.answers(texts, max_tokens)
        result[f"{num_streams} streams"] = (total_speed(ours), total_speed(theirs))
    return result


def warm(pair: Pair) -> tuple[float, float]:
    """First token of a prompt that was just answered, in milliseconds."""
    text = text_of(100, "warm")
    pair.answers([text], 2)
    ours, theirs = pair.answers([text], 2)
    return ours[0][0].first_seconds * 1e3, theirs[0][0].first_seconds * 1e3


def measured(pair: Pair, arguments: argparse.Namespace) -> tuple[Speeds, Speeds]:
    """Milliseconds and tokens per second of all rounds; a first one warms up."""
    latencies: Speeds = {}
    speeds: Speeds = {}
    for round_number in range(arguments.rounds + 1):
        fresh = by_length(pair, arguments.lengths, 2, round_number) | {"first token, warm": warm(pair)}
        totals = by_streams(pair, arguments.streams, arguments.tokens, round_number)
        if round_number:
            for found, kept in ((fresh, latencies), (totals, speeds)):
                for name, both in found.items():
                    kept.setdefault(name, []).append(both)
    return latencies, speeds


def rows(found: Speeds, unit: str) -> list[report.Row]:
    """Medians."""
    result = []
    for name, pairs in found.items():
        ours, theirs = (report.median([pair[side] for pair in pairs]) for side in (0, 1))
        result.append(report.Row(name, unit, ours, theirs, len(pairs)))
    return result


def main() -> None:
    """Load both, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a name, a GGUF file or a folder; default: the starter model")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tokens", type=int, default=48, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    spec = Registry(Path(".cache/pensieve/data/models")).find(str(arguments.model or model_file()))
    worker = OwnWorker(spec, Settings())
    bare = open_bare(spec)
    latencies, speeds = measured(Pair(worker, bare), arguments)
    loads = report.Row("cold load", "s", worker.load_seconds, bare.load_seconds, 1)
    worker.close()
    bare.close()
    result = [loads, *rows(latencies, "ms"), *rows(speeds, "tokens/s")]
    text = report.table(result, "our worker", bare.name)
    title = f"Latency and speed of {spec.name}: our worker beside the {bare.name.replace('bare', 'bare engine,')}"
    print(title, text, sep="\n")
    facts = {"rows": [row._asdict() for row in result]}
    report.write(arguments.out, f"latency-{spec.format}-{spec.name}", title, text, facts)


if __name__ == "__main__":
    main()
