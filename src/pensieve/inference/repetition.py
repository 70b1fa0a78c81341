"""Whether an answer goes round in circles: the same stretch of tokens again and again, or the same tool call.

Plain Python over token ids and events; knows no engine and no grammar. One guard watches one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from pensieve.config.settings import GenerationSettings
from pensieve.generation import GenerationEvent, ToolCallDelta, ToolCallFinished, ToolCallStarted
from pensieve.messages import Json, Message, Part, ToolCallPart, ToolResultPart

CALLS_OF_ONE_ANSWER: Final = 3
"""The same call so often in one answer is a loop: nothing came back between them that could change its result."""
_SEED_TOKENS: Final = 8
"""What must have been said before, token by token, before its distance is taken for a period."""
_WINDOW_TOKENS: Final = 4096
"""The longest stretch whose repetition is found for sure."""

_Call = tuple[str, bytes]
_Round = tuple[_Call, bytes]
"""A call and what it gave back."""


class TokenLoop:
    """Finds out whether the last tokens are one stretch, repeated. A token costs the same however many came before.

    Where the last eight tokens stood before, their distance may be a period: it is followed until a token breaks it.
    """

    def __init__(self, *, times: int, span_tokens: int) -> None:
        """Looping is `times` the same stretch in a row, when all of it has `span_tokens` at least."""
        self._times = times
        self._span_tokens = span_tokens
        self._tokens: list[int] = []
        self._recent: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._period = 0
        self._num_matching = 0
        """How many of the last tokens equal the one that stands a period before them."""

    def take(self, token: int) -> bool:
        """Take the next token; whether the answer loops now."""
        tokens = self._tokens
        tokens.append(token)
        seed = hash(tuple(tokens[-_SEED_TOKENS:]))
        if self._period and token == tokens[-1 - self._period]:
            self._num_matching += 1
        else:
            self._begin(seed)
        self._remember(seed)
        spoken = self._num_matching + self._period
        return bool(self._period) and spoken >= max(self._times * self._period, self._span_tokens)

    def _begin(self, seed: int) -> None:
        before = self._recent.get(seed, self._older.get(seed))
        self._period = 0 if before is None else len(self._tokens) - before
        self._num_matching = 0 if before is None else _SEED_TOKENS

    def _remember(self, seed: int) -> None:
        if len(self._tokens) < _SEED_TOKENS:
            return
        if len(self._recent) >= _WINDOW_TOKENS:
            self._older, self._recent = self._recent, {}
        self._recent[seed] = len(self._tokens)


class RepetitionGuard:
    """Watches one answer; `is_looping` stays true once it was found out. Turned off, it sees nothing."""

    def __init__(self, settings: GenerationSettings, messages: Sequence[Message] = ()) -> None:
        """`messages` are the request's: the calls at their end count too."""
        self._is_on = settings.repetition_guard == "on"
        self._loop = TokenLoop(times=settings.repetition_times, span_tokens=settings.repetition_tokens)
        self._stuck = _stuck_call(messages, settings.repetition_calls) if self._is_on else None
        self._name = ""
        self._fragments: list[str] = []
        self._num_called: dict[_Call, int] = {}
        self.is_looping = False

    def take_tokens(self, tokens: Iterable[int]) -> bool:
        """Take tokens of the answer, thinking and markup included; whether it loops."""
        if self._is_on and not self.is_looping:
            self.is_looping = any(self._loop.take(token) for token in tokens)
        return self.is_looping

    def take_event(self, event: GenerationEvent) -> bool:
        """Take an event of the answer; whether it loops."""
        if not self._is_on:
            return False
        match event:
            case ToolCallStarted(_, name):
                self._name = name
                self._fragments.clear()
            case ToolCallDelta(_, json):
                self._fragments.append(json)
            case ToolCallFinished():
                self._take_call((self._name, _canonical_text("".join(self._fragments))))
            case _:
                pass
        return self.is_looping

    def _take_call(self, call: _Call) -> None:
        self._num_called[call] = self._num_called.get(call, 0) + 1
        self.is_looping |= call == self._stuck or self._num_called[call] >= CALLS_OF_ONE_ANSWER


def _stuck_call(messages: Sequence[Message], times: int) -> _Call | None:
    """The call that the last `times` turns consisted of, when all of them gave back the same."""
    rounds = _last_rounds(messages, times)
    return rounds[0][0] if len(rounds) == times and len(set(rounds)) == 1 else None


def _last_rounds(messages: Sequence[Message], most: int) -> list[_Round]:
    """The newest rounds of one call and its result each, up to what a person said or another kind of turn."""
    rounds: list[_Round] = []
    result: ToolResultPart | None = None
    for message in reversed(messages):
        if len(rounds) == most:
            break
        if message.role == "system":
            continue
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
        if message.role == "user" and len(results) == 1 and result is None:
            result = results[0]
        elif message.role == "assistant" and len(calls) == 1 and result is not None:
            rounds.append(((calls[0].name, _canonical(calls[0].arguments)), _canonical(_without_id(result))))
            result = None
        else:
            break
    return rounds


def _without_id(result: ToolResultPart) -> tuple[tuple[Part, ...], bool]:
    return result.parts, result.is_error


def _canonical(value: Json) -> bytes:
    try:
        return msgspec.json.encode(value, order="sorted")
    except (RecursionError, UnicodeEncodeError):
        return str(id(value)).encode()  # like nothing else


def _canonical_text(json: str) -> bytes:
    try:
        return _canonical(msgspec.json.decode(json or "{}"))
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return json.encode("utf-8", "replace")
