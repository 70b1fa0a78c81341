"""How long a running answer stands still while another request's prompt of 4,000 tokens is read.

Before: one step takes the whole prompt. After: our settings, which read it in chunks between steps of the answer.
mlx-lm's server stands beside them.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import report
import rivals
from random_models import LABEL, SHAPES, prompt

WHOLE_PROMPT = {"PENSIEVE_MLX_PREFILL_TOKENS": "16384"}


def longest_gap(server: rivals.Server, prompt_tokens: int, answer_tokens: int, seed: int) -> tuple[float, float]:
    """Seconds of the longest silence of a running answer before a prompt comes, and while it is read."""
    running: list[rivals.Answer] = []
    pause_seconds = max(0.2, answer_tokens / 4 * step_seconds(server, seed))
    stream = threading.Thread(target=lambda: running.append(server.ask(prompt(32, f"running {seed}"), answer_tokens)))
    started_at = time.perf_counter()
    stream.start()
    time.sleep(pause_seconds)
    reading = server.ask(prompt(prompt_tokens, f"reading {seed}"), 2)
    stream.join()
    arrivals = running[0].arrivals
    gaps = list(itertools.pairwise(arrivals))
    alone = [later - earlier for earlier, later in gaps if later < reading.sent_at]
    beside = [later - earlier for earlier, later in gaps if later > reading.sent_at and earlier < reading.arrivals[0]]
    if not alone or not beside or arrivals[-1] < reading.arrivals[0]:
        raise RuntimeError(
            f"the answer of {arrivals[-1] - started_at:.1f} s did not span the prompt: ask for a longer one"
        )
    return max(alone), max(beside)


def step_seconds(server: rivals.Server, seed: int) -> float:
    """Seconds a token of one answer takes."""
    return 1 / server.ask(prompt(32, f"step {seed}"), 16).tokens_per_second


@contextmanager
def contender(name: str, model: Path, logs: Path) -> Iterator[rivals.Server]:
    """One of the three servers, which has the machine to itself."""
    if name == "mlx_lm.server":
        with rivals.mlx_lm(model, logs) as server:
            yield server
    else:
        settings = WHOLE_PROMPT if name == "before" else {}
        with rivals.pensieve(model, logs / name, name=name, **settings) as server:
            yield server


def main() -> None:
    """Measure each server alone, print the medians and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny-phi-3")
    parser.add_argument("--prompt-tokens", type=int, default=4000)
    parser.add_argument("--answer-tokens", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the model is made, or is already")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    lines = ["| server | gap alone (ms) | gap while a prompt is read (ms) |", "|---|---|---|"]
    results: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        model = rivals.made_model(arguments.shape, arguments.folder or Path(temporary) / arguments.shape)
        for name in ("mlx_lm.server", "before", "after"):
            with contender(name, model, arguments.out / "logs") as server:
                server.ask(prompt(arguments.prompt_tokens, "warm"), 8)
                sizes = (arguments.prompt_tokens, arguments.answer_tokens)
                results[name] = [longest_gap(server, *sizes, seed) for seed in range(arguments.rounds)]
            alone, beside = (report.median([pair[place] for pair in results[name]]) * 1e3 for place in (0, 1))
            lines.append(f"| {name} | {alone:.1f} | {beside:.1f} |")
            print(lines[-1])
    what = f"{arguments.shape}, {LABEL}"
    title = f"Longest gap of a running answer while {arguments.prompt_tokens:,} tokens are read ({what})"
    print(title, *lines, sep="\n")
    report.write(arguments.out, f"gap-{arguments.shape}", title, "\n".join(lines), {"gaps_seconds": results})


if __name__ == "__main__":
    main()
