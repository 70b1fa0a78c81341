"""What the store costs with 100,000 turns in it: opening, listing, searching, and keeping the words of an answer.

The words are drawn as in a language: few of them all the time, most of them rarely. Prints medians and worst.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import report
from pensieve.conversation.conversation import Conversation, Turn
from pensieve.conversation.store import ConversationStore
from pensieve.generation import TextDelta, Usage
from pensieve.messages import say

NUM_TURNS = 100_000
TURNS_OF_ONE = 20
TALKS_AT_ONCE = 200
LONGEST = 2_000
"""Turns of the one long conversation among them."""
VOCABULARY = 50_000
QUESTION_WORDS, ANSWER_WORDS = 20, 120
ROUNDS = 30
SEARCH_MS, OPEN_MS = 50.0, 100.0
"""What is asked for, of the worst."""
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)


class Measured(NamedTuple):
    """Something that was done a number of times; in milliseconds."""

    name: str
    median: float
    worst: float
    worst_of_processor: float
    """Where other programs keep the machine busy, this tells what the store itself takes."""
    limit: float = 0.0

    @property
    def line(self) -> str:
        """The row of the table."""
        asked = f"{self.limit:.0f}" if self.limit else ""
        verdict = ("met" if self.worst <= self.limit else "MISSED") if self.limit else ""
        times = (f"{value:.2f}" for value in (self.median, self.worst, self.worst_of_processor))
        return f"| {self.name} | {' | '.join(times)} | {asked} | {verdict} |"


class Speech:
    """Words by Zipf's law, the same in each run."""

    def __init__(self) -> None:
        self._random = random.Random(2030)
        letters = "etaoinshrdlucmfwypvbgk"
        lengths = [2 + min(9, number.bit_length() // 2) for number in range(VOCABULARY)]
        self.words = ["".join(self._random.choices(letters, k=length)) for length in lengths]
        self._sums = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(VOCABULARY)))

    def say(self, num_words: int) -> str:
        """A sentence."""
        return " ".join(self._random.choices(self.words, cum_weights=self._sums, k=num_words))


def filled(path: Path, num_turns: int) -> ConversationStore:
    """A store with so many turns, in conversations of `TURNS_OF_ONE` and a long one."""
    speech, store, number = Speech(), ConversationStore(path, is_durable=False), 0
    talks: list[Conversation] = []
    while number < num_turns:
        size = min(LONGEST if number == 0 else TURNS_OF_ONE, num_turns - number)
        moment = BEGIN + timedelta(minutes=number)
        turns = tuple(
            Turn(
                id=place,
                parent=place - 1 or None,
                messages=(say("user", speech.say(QUESTION_WORDS)), say("assistant", speech.say(ANSWER_WORDS))),
                created=moment + timedelta(minutes=place),
                model="tiny",
                usage=Usage(400, 300, 150),
            )
            for place in range(1, size + 1)
        )
        title, head = speech.say(6), turns[-1].id
        talks.append(Conversation(id=0, uid="", created=moment, updated=moment, title=title, head=head, turns=turns))
        number += size
        if len(talks) == TALKS_AT_ONCE or number >= num_turns:
            store.add_all(talks)
            talks.clear()
    return store


def measure(name: str, work: Callable[[], object], limit: float = 0.0, rounds: int = ROUNDS) -> Measured:
    """Do it a number of times."""
    times, worked = [], []
    for _ in range(rounds):
        began, began_work = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - began) * 1000)
        worked.append((time.process_time() - began_work) * 1000)
    found = Measured(name, report.median(times), max(times), max(worked), limit)
    print(found.line, flush=True)
    return found


def searches(store: ConversationStore) -> list[Measured]:
    """Words of all degrees of rarity."""
    words = Speech().words
    asked = {
        "the commonest word": words[0],
        "a common word": words[100],
        "a rare word": words[20_000],
        "two common words": f"{words[5]} {words[60]}",
        "a common and a rare word": f"{words[2]} {words[30_000]}",
        "three letters, a beginning": words[400][:3],
        "four letters, a beginning": words[3000][:4],
        "a phrase": f'"{words[1]} {words[2]}"',
        "a word nobody said": "zzyzx",
    }
    return [measure(f"search: {name}", partial(store.search, typed), SEARCH_MS) for name, typed in asked.items()]


def uses(path: Path, store: ConversationStore) -> list[Measured]:
    """What people and the chat do with it."""
    last = store.latest()
    assert last is not None
    live = store.begin_turn(last, [say("user", "Go on.")])

    def turn() -> None:
        store.finish(store.begin_turn(last, [say("user", "Go on.")]).id, [say("assistant", "I do.")])

    return [
        measure("open the file", lambda: ConversationStore(path).close(), OPEN_MS),
        measure("open a conversation of 20 turns", lambda: store.open(last), OPEN_MS),
        measure(f"open the one of {LONGEST:,} turns", lambda: store.open(1), OPEN_MS),
        measure("list 20 conversations", lambda: store.list(20), OPEN_MS),
        measure("sums over everything", store.stats),
        measure("keep a question and its answer, durably", turn),
        measure("keep a word of a streamed answer", lambda: store.extend(live.id, [TextDelta("word ")]), rounds=2000),
    ]


def deletions(store: ConversationStore) -> list[Measured]:
    """Off the disk, too."""
    doomed = iter([each.id for each in store.list(5)])
    return [measure("delete a conversation for good", lambda: store.delete(next(doomed)), rounds=5)]


def main() -> None:
    """Fill a store, use it, print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=NUM_TURNS)
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conversations.db"
        began = time.perf_counter()
        filled(path, chosen.turns).close()
        print(f"{chosen.turns:,} turns written in {time.perf_counter() - began:.0f} s")
        with ConversationStore(path) as store:
            size_mb = store.stats().size_bytes / 1e6
            rows = [*searches(store), *uses(path, store), *deletions(store)]
    head = "| what | median ms | worst ms | worst, processor's ms | asked for | |\n|---|---|---|---|---|---|\n"
    text = head + "\n".join(row.line for row in rows)
    about = {"device": {"cores": os.cpu_count(), "processor": platform.machine()}}
    facts = {"turns": chosen.turns, "size_mb": size_mb, "rows": [row._asdict() for row in rows], "machine": about}
    title = f"The store with {chosen.turns:,} turns ({size_mb:,.0f} MB)"
    report.write(chosen.out, "conversation", title, text, facts)


if __name__ == "__main__":
    main()
