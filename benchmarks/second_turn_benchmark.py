"""How soon the second turn of a long conversation starts: from memory, from disk after a restart, and recomputed."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import machine
import report
import rivals
from random_models import LABEL, SHAPES, prompt

SETTLE_SECONDS = 60.0
"""Longest wait for the disk tier to write what it keeps."""
QUIET_READINGS = 5
"""A second apart."""
SIBLINGS = 3
"""Other second turns of the same lengths: on a GPU the first of a new length pays for a plan of its attention."""


class Turn(NamedTuple):
    """How a turn started."""

    name: str
    first_seconds: float
    prompt_tokens: int
    cached_tokens: int


def turn(name: str, server: rivals.Server, *texts: str) -> Turn:
    """Ask for two tokens of the next answer of that conversation."""
    answer = server.ask(rivals.say(*texts), 2)
    return Turn(name, answer.first_seconds, answer.prompt_tokens, answer.cached_tokens)


def settle(folder: Path) -> None:
    """Wait until the files below stand still for a while: an idle engine writes its cache to disk."""
    seen: object = None
    num_quiet = 0
    ends_at = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < ends_at and num_quiet < QUIET_READINGS:
        time.sleep(1.0)
        now = sorted((str(file), file.stat().st_size) for file in folder.rglob("*") if file.is_file())
        num_quiet = num_quiet + 1 if now == seen else 0
        seen = now


def conversation(model: Path, home: Path, num_tokens: int, seed: int) -> list[Turn]:
    """Starts of the first turn, and of second ones from memory, from disk after a restart, and with nothing cached."""
    long, reply, more = prompt(num_tokens, f"long {seed}"), prompt(30, f"reply {seed}"), prompt(30, f"more {seed}")
    context = {"PENSIEVE_MODEL_CONTEXT_TOKENS": str(2 * num_tokens)}
    turns = []
    with rivals.pensieve(model, home, name="first", **context) as server:
        server.ask(prompt(600, "warm"), 8)
        turns.append(turn("first turn", server, long))
        turns.append(turn("second turn, from memory", server, long, reply, more))
        others = [
            (prompt(30, f"{seed} {place} reply"), prompt(30, f"{seed} {place} more")) for place in range(SIBLINGS)
        ]
        siblings = [turn("another of the same lengths", server, long, *texts) for texts in others]
        turns.append(sorted(siblings, key=lambda one: one.first_seconds)[SIBLINGS // 2])
        settle(home / "state")
    for name, log, disk in (
        ("second turn, after a restart", "restarted", {}),
        ("second turn, recomputed", "recomputed", {"PENSIEVE_MLX_DISK_CACHE_MIB": "0"}),
    ):
        with rivals.pensieve(model, home, name=log, **context, **disk) as server:
            server.ask(prompt(600, f"warm again {name}"), 8)
            turns.append(turn(name, server, long, reply, more))
    return turns


def summary(rounds: Sequence[Sequence[Turn]]) -> str:
    """Medians, and each start's share of the first turn's."""
    first = report.median([turns[0].first_seconds for turns in rounds])
    lines = [
        "| start of | time to first token (ms) | of the first turn | prompt tokens | cached |",
        "|---|---|---|---|---|",
    ]
    for turns in zip(*rounds, strict=True):
        seconds = report.median([one.first_seconds for one in turns])
        counts = f"{turns[0].prompt_tokens:,} | {turns[0].cached_tokens:,}"
        lines.append(f"| {turns[0].name} | {seconds * 1e3:,.1f} | {seconds / first:.1%} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    """Run the conversation a few times, each with a home of its own, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny-phi-3")
    parser.add_argument("--tokens", type=int, default=16_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the model is made, or is already")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    title = f"Start of the second turn of a conversation of {arguments.tokens:,} tokens ({arguments.shape}, {LABEL})"
    rounds = []
    facts = machine.measured()
    with tempfile.TemporaryDirectory() as temporary:
        model = rivals.made_model(arguments.shape, arguments.folder or Path(temporary) / arguments.shape)
        for seed in range(arguments.rounds):
            home = Path(temporary) / f"home-{seed}"
            rounds.append(conversation(model, home, arguments.tokens, seed))
            for log in home.glob("*.log"):
                shutil.copy(log, arguments.out / f"{seed}-{log.name}")
            shutil.rmtree(home)
            print(summary(rounds[-1:]), flush=True)
            known = {"machine": facts, "rounds": rounds}
            report.write(arguments.out, f"second-turn-{arguments.shape}", title, summary(rounds), known)
    print(title, summary(rounds), sep="\n")


if __name__ == "__main__":
    main()
