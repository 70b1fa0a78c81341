"""What the prefix cache did for the last requests: reused, computed again, and where a prompt left an earlier one.

Decides over digests and counts; knows no engine, whose cache it only watches from outside. Bounded in memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Literal

import msgspec

from pensieve.generation import Finished, GenerationEvent, Started
from pensieve.messages import Json
from pensieve.server.prompt_marks import PromptMarks

REMEMBERED_REQUESTS = 64
REMEMBERED_MARKS = 50_000
REMEMBERED_TEXT_CHARACTERS = 32 * 2**20
SLACK_TOKENS = 64
"""Caches keep whole blocks: this much is never missed."""
CAREFUL = 0.8
EXCERPT_CHARACTERS = 60

Reason = Literal["reused", "changed", "evicted", "new"]


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first place where a prompt differs from the earlier one."""

    kind: Literal["model", "tools", "system", "messages"]
    path: str
    before: str = ""
    """Text around it in the earlier request; empty where the server does not keep it."""
    after: str = ""


class CacheLine(msgspec.Struct, frozen=True):
    """What became of one request's prompt."""

    request_id: str
    started_at: float
    """Unix time."""
    session: str
    reason: Reason
    prompt_tokens: int
    reused_tokens: int
    reusable_tokens: int
    """What the cache could have given, had nothing changed and nothing been evicted."""
    recompute_seconds: float | None
    """Time that reading the rest took; None: not measured."""
    lost_seconds: float | None
    """The share of it that reuse would have saved."""
    compared_with: str = ""
    """Id of the earlier request."""
    difference: Difference | None = None

    @property
    def recomputed_tokens(self) -> int:
        """What had to be read."""
        return self.prompt_tokens - self.reused_tokens

    @property
    def lost_tokens(self) -> int:
        """What had to be read although it could have been reused."""
        return max(0, self.reusable_tokens - self.reused_tokens)


class CacheReport(msgspec.Struct, frozen=True):
    """The last requests, newest first."""

    requests: tuple[CacheLine, ...]
    keeps_text: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What a prompt could have reused, and where it left the earlier one."""

    reusable_tokens: int = 0
    compared_with: str = ""
    difference: Difference | None = None


class Watch:
    """One request, from its marks to its end; tells the log what it sees."""

    def __init__(self, log: CacheLog, marks: PromptMarks, request_id: str, message_id: str, session: str) -> None:
        self.marks = marks
        self.request_id = request_id
        self.message_id = message_id
        self.session = session
        self.started_at = time.time()
        self.prompt_tokens = 0
        self.reused_tokens = 0
        self.prefill_seconds = 0.0
        self.verdict = Verdict()
        self._log = log

    @property
    def num_read(self) -> int:
        """Tokens that had to be read."""
        return self.prompt_tokens - self.reused_tokens

    def observe(self, event: GenerationEvent) -> None:
        """Take in what an event says about the prompt."""
        if isinstance(event, Started):
            self.prompt_tokens, self.reused_tokens = event.prompt_tokens, event.cached_tokens
            self._log.add(self)
        elif isinstance(event, Finished) and event.timings is not None:
            self.prefill_seconds = event.timings.prefill_seconds

    def diagnostics(self, previous_message_id: str) -> Json:
        """The answer to a client that asks why the cache missed; None where there is nothing to tell."""
        if not previous_message_id:
            return None
        previous = self._log.find(previous_message_id)
        if previous is None:
            return {"cache_miss_reason": {"type": "previous_message_not_found"}}
        verdict = _compare(self, previous)
        lost_tokens = max(0, verdict.reusable_tokens - self.reused_tokens)
        if verdict.difference is not None:
            kind = f"{verdict.difference.kind}_changed"
            return {"cache_miss_reason": {"type": kind, "cache_missed_input_tokens": lost_tokens}}
        return {"cache_miss_reason": {"type": "unavailable"}} if lost_tokens >= SLACK_TOKENS else None


class CacheLog:
    """The last requests."""

    def __init__(self, *, keeps_text: bool = False) -> None:
        self.keeps_text = keeps_text
        self._watches: deque[Watch] = deque(maxlen=REMEMBERED_REQUESTS)

    def add(self, watch: Watch) -> None:
        """A request's prompt is known, and what the cache gave for it."""
        earlier = _earlier(watch, self._watches)
        watch.verdict = _begun_alike(watch, self._watches) if earlier is None else _compare(watch, earlier)
        self._watches.append(watch)
        while len(self._watches) > 1 and sum(len(each.marks.marks) for each in self._watches) > REMEMBERED_MARKS:
            self._watches.popleft()
        budget = REMEMBERED_TEXT_CHARACTERS
        for each in reversed(self._watches):
            budget -= sum(map(len, each.marks.texts))
            if budget < 0:
                each.marks = msgspec.structs.replace(each.marks, texts=())

    def find(self, message_id: str) -> Watch | None:
        """The request that was answered with that message."""
        return next((watch for watch in self._watches if watch.message_id == message_id), None)

    def report(self, *, with_text: bool = False) -> CacheReport:
        """What is known of the last requests."""
        measured = [watch for watch in self._watches if watch.prefill_seconds > 0 and watch.num_read > 0]
        seconds = sum(watch.prefill_seconds for watch in measured)
        speed = sum(watch.num_read for watch in measured) / seconds if measured else None
        lines = (_line(watch, speed) for watch in reversed(self._watches))
        return CacheReport(tuple(line if with_text else _without_text(line) for line in lines), self.keeps_text)


def _earlier(watch: Watch, others: Iterable[Watch]) -> Watch | None:
    """What the request goes on from: of its session, the newest of those with most of its words; None if it is new."""
    best, best_bytes = None, 0
    sizes = _message_sizes(watch)
    for other in others:
        theirs = _message_sizes(other)
        common_bytes = sum(size for digest, size in theirs.items() if digest in sizes)
        is_akin = 2 * common_bytes >= min(sum(sizes.values()), sum(theirs.values()))
        if other.session == watch.session and is_akin and common_bytes >= best_bytes:
            best, best_bytes = other, common_bytes
    return best


def _message_sizes(watch: Watch) -> dict[bytes, int]:
    return {mark.digest: mark.size_bytes for mark in watch.marks.marks if mark.kind == "messages"}


def _begun_alike(watch: Watch, others: Iterable[Watch]) -> Verdict:
    """A new conversation may begin like another: with the same tools and system text, in whichever order they come.

    How much of it that is, is guessed from sizes, with care.
    """
    marks = watch.marks.marks
    num_leading = sum(mark.kind != "messages" for mark in marks)
    num_shared = max((watch.marks.num_shared(other.marks) for other in others), default=0)
    if num_shared < num_leading:
        return Verdict()
    shared_bytes = sum(mark.size_bytes for mark in marks[:num_shared])
    total_bytes = sum(mark.size_bytes for mark in marks)
    return Verdict(int(CAREFUL * watch.prompt_tokens * shared_bytes / max(1, total_bytes)))


def _compare(watch: Watch, earlier: Watch) -> Verdict:
    reusable_tokens = min(watch.prompt_tokens, earlier.prompt_tokens)
    return Verdict(reusable_tokens, earlier.request_id, _difference(earlier.marks, watch.marks))


def _line(watch: Watch, usual_speed: float | None) -> CacheLine:
    verdict = watch.verdict
    reusable_tokens = max(watch.reused_tokens, verdict.reusable_tokens)
    lost_tokens = reusable_tokens - watch.reused_tokens
    is_measured = watch.prefill_seconds > 0 and watch.num_read > 0
    speed = watch.num_read / watch.prefill_seconds if is_measured else usual_speed
    return CacheLine(
        watch.request_id,
        watch.started_at,
        watch.session,
        _reason(verdict, lost_tokens),
        watch.prompt_tokens,
        watch.reused_tokens,
        reusable_tokens,
        watch.num_read / speed if speed else None,
        lost_tokens / speed if speed else None,
        verdict.compared_with,
        verdict.difference,
    )


def _reason(verdict: Verdict, lost_tokens: int) -> Reason:
    if verdict.difference is not None:
        return "changed"
    if lost_tokens >= SLACK_TOKENS:
        return "evicted"
    return "reused" if verdict.compared_with else "new"


def _difference(earlier: PromptMarks, now: PromptMarks) -> Difference | None:
    """The first place where they differ; what one of them has beyond the other's end is none."""
    if earlier.model != now.model:
        return Difference("model", "model")
    at = now.num_shared(earlier)
    if at == min(len(now.marks), len(earlier.marks)):
        return None
    mark = now.marks[at]
    if mark.kind != earlier.marks[at].kind:  # one has more tools, or more system text, than the other
        order = ("tools", "system", "messages")
        mark = min(mark, earlier.marks[at], key=lambda each: order.index(each.kind))
    before, after = _excerpts(earlier.texts[at : at + 1], now.texts[at : at + 1])
    return Difference(mark.kind, mark.path, before, after)


def _excerpts(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, str]:
    if not before or not after:
        return "", ""
    pairs = enumerate(zip(before[0], after[0], strict=False))
    at = next((at for at, (old, new) in pairs if old != new), min(len(before[0]), len(after[0])))
    start, end = max(0, at - EXCERPT_CHARACTERS), at + EXCERPT_CHARACTERS
    return before[0][start:end], after[0][start:end]


def _without_text(line: CacheLine) -> CacheLine:
    if line.difference is None:
        return line
    return msgspec.structs.replace(line, difference=Difference(line.difference.kind, line.difference.path))
