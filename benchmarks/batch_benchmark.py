"""What a batch of 200 costs four live clients: their first token with and without it, in turn, on one server.

Then the server is killed in the middle of the batch and started again: every request must have exactly one result.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import report
from own_worker import text_of
from serving import HOME, Stream, body

NUM_CLIENTS = 4
NUM_REQUESTS = 200
THINKING_SECONDS = (0.2, 1.2)
"""How long a client waits before it asks again."""
KILL_SECONDS = 5.0
"""After clients came, the server is killed."""
TARGET_GROWTH = 1.2

_numbers = itertools.count()


class Home:
    """A home of its own with the models of this checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        (folder / "data" / "models").symlink_to(HOME / "data" / "models")

    @contextmanager
    def server(self) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
        """A server, and a client of its batches."""
        command = [sys.executable, "-m", "pensieve", "serve", "--port", "0"]
        variables = os.environ | {"PENSIEVE_HOME": str(self.folder)}
        with subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
            with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
                try:
                    yield process, client
                finally:
                    process.terminate()


class Clients:
    """Live clients, each with a conversation's beginning of its own, until they are told to stop."""

    def __init__(self, url: str, num_words: int) -> None:
        self.first_token_seconds: list[float] = []
        self._url = url
        self._words = num_words
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._talk, args=(number,)) for number in range(NUM_CLIENTS)]

    def run(self, seconds: float) -> list[float]:
        """First tokens of so many seconds."""
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        return self.first_token_seconds

    def _talk(self, number: int) -> None:
        system = text_of(self._words, f"client {number}")
        chance = random.Random(f"{number} {next(_numbers)}")
        with contextlib.suppress(OSError, StopIteration):  # the server was killed
            self._ask_on(system, chance)

    def _ask_on(self, system: str, chance: random.Random) -> None:
        while not self._is_over.is_set():
            stream = Stream(self._url, body(f"Question {next(_numbers)}: why?", 12, system=system))
            arrived = stream.arrivals(b"content_block_delta")
            self.first_token_seconds.append(next(arrived) - stream.sent_at)
            for _ in arrived:
                pass
            stream.close()
            self._is_over.wait(chance.uniform(*THINKING_SECONDS))


def create(client: httpx.Client) -> str:
    """A new batch."""
    asked = [
        {"custom_id": f"r{at}", "params": body(f"Number {next(_numbers)}: tell of {at}.", 16) | {"stream": False}}
        for at in range(NUM_REQUESTS)
    ]
    return str(client.post("/v1/messages/batches", json={"requests": asked}).raise_for_status().json()["id"])


def num_done(client: httpx.Client, batch_id: str) -> int:
    """Requests that have a result."""
    return int(client.get(f"/v1/messages/batches/{batch_id}").raise_for_status().json()["progress"]["done"])


def cancel(client: httpx.Client, batch_id: str) -> None:
    """End the batch, and wait for that."""
    client.post(f"/v1/messages/batches/{batch_id}/cancel")
    while client.get(f"/v1/messages/batches/{batch_id}").json()["processing_status"] != "ended":
        time.sleep(0.1)


def measure(home: Home, arguments: argparse.Namespace) -> tuple[dict[str, list[float]], str, int]:
    """First tokens without and with a batch; the last batch, cut off by a kill, and how much of it was done."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    with home.server() as (process, client):
        url = str(client.base_url).rstrip("/")
        Clients(url, arguments.words).run(arguments.seconds / 3)  # loads, and warms up
        for _ in range(arguments.rounds):
            found["without"] += Clients(url, arguments.words).run(arguments.seconds)
            batch_id = create(client)
            found["with"] += Clients(url, arguments.words).run(arguments.seconds)
            done = num_done(client, batch_id)
            so_far = ", ".join(f"{report.median(found[name]) * 1e3:.0f} ms {name} a batch" for name in found)
            print(f"{so_far}; {done} of {NUM_REQUESTS} were answered beside live clients", flush=True)
            cancel(client, batch_id)
        batch_id = create(client)
        while num_done(client, batch_id) < NUM_REQUESTS // 4:
            time.sleep(0.1)
        crowd = threading.Thread(target=Clients(url, arguments.words).run, args=(KILL_SECONDS * 2,))
        crowd.start()
        time.sleep(KILL_SECONDS)
        process.send_signal(signal.SIGKILL)
        crowd.join()
    return found, batch_id, done


def resume(home: Home, batch_id: str) -> tuple[float, list[Any]]:
    """Start the server again and let it end the batch: seconds, and all results."""
    began = time.monotonic()
    with home.server() as (_, client):
        client.post("/v1/messages", json=body("hello", 1) | {"stream": False})
        while client.get(f"/v1/messages/batches/{batch_id}").json()["processing_status"] != "ended":
            time.sleep(0.2)
        lines = client.get(f"/v1/messages/batches/{batch_id}/results").text.splitlines()
    return time.monotonic() - began, lines


def told(
    found: dict[str, list[float]],
    medians: dict[str, float],
    done: int,
    lines: list[Any],
    names: set[str],
    seconds: float,
) -> str:
    """What was measured, in words."""
    growth = medians["with"] / medians["without"]
    rows = [f"| {name} a batch of {NUM_REQUESTS} | {medians[name]:.0f} ms | {len(found[name])} |" for name in found]
    is_met = "met" if growth < TARGET_GROWTH else "MISSED"
    is_whole = "met" if len(lines) == len(names) == NUM_REQUESTS else "MISSED"
    ratio = f"Ratio {growth:.2f} ({is_met}: less than {TARGET_GROWTH}); {done} of the batch were answered meanwhile."
    num_results = f"{len(lines)} results of {len(names)} requests after {seconds:.0f} s"
    killed = f"Killed in the middle, with live clients, and started again: {num_results}"
    head = ["| live clients' first token | median | requests |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", ratio, "", f"{killed} ({is_whole})."])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=150, help="of each client's system prompt")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        found, batch_id, done = measure(home, arguments)
        seconds, lines = resume(home, batch_id)
    names = {line.split('"custom_id":"')[1].split('"')[0] for line in lines}
    medians = {name: report.median(values) * 1e3 for name, values in found.items()}
    text = told(found, medians, done, lines, names, seconds)
    title = f"A batch of {NUM_REQUESTS} beside {NUM_CLIENTS} live clients"
    print(title, text, sep="\n")
    facts = {
        "median_ms": medians,
        "growth": medians["with"] / medians["without"],
        "results": len(lines),
        "requests": len(names),
    }
    report.write(arguments.out, "batch-smollm2-135m", title, text, facts)


if __name__ == "__main__":
    main()
