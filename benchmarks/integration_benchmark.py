"""Request in to answer out, through HTTP server and worker, beside the bare engine in the same run.

Takes a GGUF file (llama.cpp) or a folder of safetensors (MLX). Rounds alternate; each prompt is new and has the same
number of tokens on both sides.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import report
import rivals
from bare_engines import BareEngine, open_bare, prompt_like
from own_worker import text_of
from pensieve.models.registry import Registry
from serving import model_file

PAUSE_SECONDS = 0.05
"""An engine's threads spin for a moment after their last token, and would be in the other one's way."""


def straight(bare: BareEngine, text: str, served: rivals.Answer) -> tuple[float, float]:
    """Seconds to the first token and to the end, of a prompt and an answer of as many tokens."""
    ids = prompt_like(bare, text, served.prompt_tokens, served.cached_tokens)
    timed = bare.answer([ids], served.output_tokens)[0]
    return timed.first_seconds, timed.whole_seconds


def main() -> None:
    """Alternate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a name, a GGUF file or a folder; default: the starter model")
    parser.add_argument("--words", type=int, default=64, help="about the tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    name = str(arguments.model or model_file())
    spec = Registry(Path(".cache/pensieve/data/models")).find(name)
    bare = open_bare(spec)
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    with tempfile.TemporaryDirectory() as home, rivals.pensieve(spec.location, Path(home)) as server:
        for round_number in range(arguments.rounds + 2):
            text = text_of(arguments.words, f"round {round_number}")
            served = server.ask(text, arguments.tokens)
            time.sleep(PAUSE_SECONDS)
            theirs = straight(bare, text, served)
            time.sleep(PAUSE_SECONDS)
            if round_number >= 2:  # the first rounds load and warm up
                pairs.append(((served.first_seconds, served.arrivals[-1] - served.sent_at), theirs))
    bare.close()
    result = []
    for place, label in enumerate(("request to first token", "request to whole answer")):
        ours, bare_ms = (report.median([pair[side][place] for pair in pairs]) * 1e3 for side in (0, 1))
        result.append(report.Row(label, "ms", ours, bare_ms, len(pairs)))
    text = report.table(result, "server + worker", bare.name)
    title = f"Request in to answer out, {spec.name}: {arguments.words} words in, {arguments.tokens} tokens out"
    print(title, text, sep="\n")
    facts = {"rows": [row._asdict() for row in result]}
    report.write(arguments.out, f"integration-{spec.format}-{spec.name}", title, text, facts)


if __name__ == "__main__":
    main()
