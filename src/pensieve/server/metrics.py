"""What `/metrics` tells, in the text format of Prometheus: memory by kind, levels, workers, requests, tokens, times.

Counts and writes; reads no clock and no memory itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pensieve.devices.cuda import DeviceMemory
from pensieve.devices.levels import LEVELS
from pensieve.devices.processes import ProcessMemory
from pensieve.generation import Timings, Usage
from pensieve.inference.supervision import MemoryStatus, WorkerStatus

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BOUNDS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

Sample = tuple[Mapping[str, str], float]


class Histogram:
    """Counts durations by upper bound."""

    def __init__(self) -> None:
        self._counts = [0] * len(BOUNDS_SECONDS)
        self._sum_seconds = 0.0
        self._num = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._sum_seconds += seconds
        self._num += 1
        for place, bound in enumerate(BOUNDS_SECONDS):
            self._counts[place] += seconds <= bound

    def lines(self, name: str, meaning: str) -> Iterator[str]:
        """As Prometheus reads it."""
        yield from (f"# HELP {name} {meaning}", f"# TYPE {name} histogram")
        for bound, count in zip(BOUNDS_SECONDS, self._counts, strict=True):
            yield f'{name}_bucket{{le="{bound:g}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self._num}'
        yield f"{name}_sum {self._sum_seconds:.6f}"
        yield f"{name}_count {self._num}"


class Tally:
    """Tokens and times of all requests of one server that reached a model."""

    def __init__(self) -> None:
        self._tokens: Counter[str] = Counter(prompt=0, cached=0, completion=0)
        self._answers = Histogram()
        self._first_tokens = Histogram()

    def add(self, seconds: float, usage: Usage, timings: Timings | None) -> None:
        """One request that has ended, after so many seconds."""
        self._tokens.update(prompt=usage.prompt_tokens, cached=usage.cached_tokens, completion=usage.completion_tokens)
        self._answers.add(seconds)
        if timings is not None and timings.time_to_first_token_seconds > 0.0:
            self._first_tokens.add(timings.time_to_first_token_seconds)

    def lines(self) -> Iterator[str]:
        """As Prometheus reads it."""
        yield from _family("tokens_total", "counter", "Tokens of all requests.", _by("kind", self._tokens))
        yield from self._answers.lines("pensieve_request_seconds", "From a request's arrival to its end.")
        yield from self._first_tokens.lines("pensieve_first_token_seconds", "Until the first token, where it is known.")


def memory_lines(memory: MemoryStatus, server: ProcessMemory | None, cards: tuple[DeviceMemory, ...]) -> Iterator[str]:
    """The machine's memory, and the server's own."""
    reading = memory.reading
    kinds = {
        "available": reading.available_bytes,
        "total": reading.total_bytes,
        "swap_used": reading.swap_used_bytes,
        "lowest_available": memory.lowest_available_bytes,
    }
    known = {kind: num_bytes for kind, num_bytes in kinds.items() if num_bytes is not None}
    yield from _family("memory_bytes", "gauge", "Memory of the machine, within its limits.", _by("kind", known))
    if reading.stalled_percent is not None:
        stalled: list[Sample] = [({}, reading.stalled_percent / 100)]
        yield from _family("memory_stalled_ratio", "gauge", "Time lost to waiting for memory.", stalled)
    levels: list[Sample] = [({"level": level}, float(level == memory.level)) for level in LEVELS]
    yield from _family("memory_level", "gauge", "1 for the level that holds.", levels)
    entered = _by("level", memory.num_entered)
    yield from _family("memory_levels_entered_total", "counter", "How often each level was entered.", entered)
    refused: list[Sample] = [({}, memory.num_refused)]
    yield from _family("memory_refusals_total", "counter", "Requests refused because memory was short.", refused)
    if server is not None:
        yield from _family("server_memory_bytes", "gauge", "Memory of this process.", _process(server))
    if cards:
        free: list[Sample] = [({"card": card.uuid}, card.free_bytes) for card in cards]
        yield from _family("card_free_bytes", "gauge", "Free memory of a graphics card.", free)


def worker_lines(worker: WorkerStatus) -> Iterator[str]:
    """The worker: what it holds, and what happened to those before it."""
    if worker.memory is not None:
        yield from _family("worker_memory_bytes", "gauge", "Memory of the worker.", _process(worker.memory))
    cached: list[Sample] = [({}, worker.cached.num_bytes)]
    yield from _family("prompt_cache_bytes", "gauge", "Prompts that the engine keeps in memory.", cached)
    evicted: list[Sample] = [({}, worker.cached.evicted_bytes)]
    yield from _family("prompt_cache_evicted_bytes_total", "counter", "Evicted since the model was loaded.", evicted)
    is_ready: list[Sample] = [({}, float(worker.state == "ready"))]
    yield from _family("worker_ready", "gauge", "1 while the model is loaded.", is_ready)
    yield from _family("worker_loads_total", "counter", "Times the model was loaded.", [({}, worker.num_loads)])
    reasons = {
        "crash": worker.num_crashes - worker.num_hangs,
        "hang": worker.num_hangs,
        "memory": worker.num_unloads,
        "growth": worker.num_outgrown,
    }
    yield from _family("worker_ends_total", "counter", "Workers that ended, and why.", _by("reason", reasons))


def log_lines(num_dropped: int) -> Iterator[str]:
    """The program's own log."""
    dropped: list[Sample] = [({}, num_dropped)]
    yield from _family("log_lines_dropped_total", "counter", "Lines of the log that nobody read in time.", dropped)


def request_lines(counts: Mapping[str, int]) -> Iterator[str]:
    """Requests of all kinds, as /health counts them."""
    ended = {name: count for name, count in counts.items() if name not in {"received", "running"}}
    yield from _family("requests_total", "counter", "Requests by how they ended.", _by("ending", ended))
    yield from _family("requests_running", "gauge", "Requests under way.", [({}, counts["running"])])


def _process(memory: ProcessMemory) -> list[Sample]:
    return _by("kind", {"private": memory.private_bytes, "mapped": memory.mapped_bytes})


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [({label: name}, value) for name, value in values.items()]


def _family(name: str, kind: str, meaning: str, samples: list[Sample]) -> Iterator[str]:
    yield from (f"# HELP pensieve_{name} {meaning}", f"# TYPE pensieve_{name} {kind}")
    for labels, value in samples:
        inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
        yield f"pensieve_{name}{{{inside}}} {_number(value)}" if inside else f"pensieve_{name} {_number(value)}"


def _number(value: float) -> str:
    """Whole numbers in full: rounded bytes would jump."""
    return str(int(value)) if value == int(value) else repr(float(value))
