"""A backend that plays a script: for demos without a model, and for tests that need exact words, waits and failures.

Knows no engine and no wire. A token is a word here: a run of characters between white space.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from pensieve.errors import ContextOverflow, InvalidRequest, PensieveError, rebuild
from pensieve.generation import (
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    PromptProgress,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.inference.backend import Limits
from pensieve.inference.script import Call, Delay, Fail, Progress, Say, Script, Step, Think, Turn, load_script
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Json,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["Script", "ScriptedBackend", "load_script", "prompt_words"]

MATCHED_CHARACTERS = 20_000
"""`contains` and `pattern` look at this much of the end of the user's words, so that a search stays short."""
REMEMBERED_REQUESTS = 100
_WORD = re.compile(r"\s*\S+|\s+$")

Silence = float
"""Seconds in which nothing comes."""


def prompt_words(request: GenerationRequest) -> int:
    """Words of all messages and tools of a request."""
    spoken = (text for message in request.messages for text in _texts(message.parts))
    offered = (f"{tool.name} {tool.description} {_json(tool.parameters)}" for tool in request.tools)
    return sum(len(text.split()) for text in (*spoken, *offered, request.text))


def _json(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def _texts(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case TextPart(text) | ThinkingPart(text):
                yield text
            case ToolCallPart(_, name, arguments):
                yield f"{name} {_json(arguments)}"
            case ToolResultPart(_, inner):
                yield from _texts(inner)
            case DocumentPart("text/plain", data):
                yield data.decode(errors="replace")
            case _:
                pass


Ending = Literal["finished", "failed", "cancelled"]


@dataclass
class Counts:
    """What has become of the requests; `running` is the rest."""

    accepted: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def running(self) -> int:
        """Requests that have not ended."""
        return self.accepted - self.finished - self.failed - self.cancelled

    def end(self, ending: Ending) -> None:
        """Count one request's end."""
        setattr(self, ending, getattr(self, ending) + 1)


class ScriptedBackend:
    """Plays a script. Sampling, tools and schemas of a request change nothing: the script is the answer."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.counts = Counts()
        self.requests: deque[GenerationRequest] = deque(maxlen=REMEMBERED_REQUESTS)
        """The last requests, for tests that look at what arrived."""
        self.is_closed = False
        self._in_line = [turn for turn in script.turns if not turn.is_conditional]
        self._num_taken = 0
        self._num_answered: Counter[int] = Counter()
        """By a turn's identity: equal turns are still two."""
        self._changed = asyncio.Event()

    async def until(self, **counts: int) -> None:
        """Wait until the counts are these: tests look at what happened, not at a clock."""
        while any(getattr(self.counts, name) != count for name, count in counts.items()):
            self._changed.clear()
            await self._changed.wait()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`."""
        _refuse_unseen(self.script, request)
        turn = self._choose(request)
        self._note(turn)
        self.counts.accepted += 1
        self._changed.set()
        self.requests.append(request)
        ending: Ending = "cancelled"
        try:
            for action in _Performance(self.script, turn, request).actions():
                if isinstance(action, int | float):
                    await asyncio.sleep(action)
                    continue
                ending = "finished" if isinstance(action, Finished) else ending
                yield action
        except PensieveError:
            ending = "failed"
            raise
        finally:
            self.counts.end(ending)
            self._changed.set()

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`: words, or what the turn says."""
        return _prompt_tokens(self._choose(request), request)

    async def limits(self) -> Limits:
        """See `Backend.limits`."""
        script = self.script
        return Limits(
            script.model, script.context_tokens, script.max_output_tokens, script.capabilities, engine="script"
        )

    async def aclose(self) -> None:
        """See `Backend.aclose`; nothing is held."""
        self.is_closed = True

    def _choose(self, request: GenerationRequest) -> Turn:
        last = next((m for m in reversed(request.messages) if m.role == "user"), Message("user", ()))
        words = (request.text or "\n".join(_texts(last.parts)))[-MATCHED_CHARACTERS:]
        has_tool_result = any(isinstance(part, ToolResultPart) for part in last.parts)
        for turn in self.script.turns:
            is_left = turn.times is None or self._num_answered[id(turn)] < turn.times
            if is_left and turn.is_conditional and turn.is_met(words, has_tool_result=has_tool_result):
                return turn
        if not self._in_line:
            return Turn(steps=(Say("No turn of the script answers this."),))
        return self._in_line[self._num_taken % len(self._in_line)]

    def _note(self, turn: Turn) -> None:
        self._num_answered[id(turn)] += 1
        self._num_taken += not turn.is_conditional


def _refuse_unseen(script: Script, request: GenerationRequest) -> None:
    newest = request.messages[-1] if request.messages else Message("user", ())
    if "images" not in script.capabilities and any(isinstance(part, ImagePart) for part in newest.parts):
        raise InvalidRequest(f"{script.model} cannot see images: send text, or use a model that can", path="messages")


def _prompt_tokens(turn: Turn, request: GenerationRequest) -> int:
    return prompt_words(request) if turn.prompt_tokens is None else turn.prompt_tokens


class _Performance:
    """One playing of one turn, in plain steps: events, and silences between them."""

    def __init__(self, script: Script, turn: Turn, request: GenerationRequest) -> None:
        self._turn = turn
        self._stops = request.stop
        self._prompt_tokens = _prompt_tokens(turn, request)
        self._limit_tokens = script.context_tokens
        self._chunk_words = turn.chunk_words or script.chunk_words
        seconds = turn.chunk_delay_seconds
        self._pause: Silence = script.chunk_delay_seconds if seconds is None else seconds
        room_tokens = script.context_tokens - self._prompt_tokens
        asked_tokens = min(request.max_tokens or script.max_output_tokens, script.max_output_tokens)
        self._budget_tokens = min(asked_tokens, room_tokens)
        self._budget_reason: FinishReason = "length" if asked_tokens <= room_tokens else "context_full"
        self._cut: FinishReason | None = None
        self._stop_string: str | None = None
        self._num_said = 0
        self._has_called = False

    def actions(self) -> Iterator[GenerationEvent | Silence]:
        """The whole turn; raises what the script fails with."""
        if self._prompt_tokens > self._limit_tokens:
            raise ContextOverflow(prompt_tokens=self._prompt_tokens, limit_tokens=self._limit_tokens)
        yield self._turn.delay_before_start_seconds
        if self._turn.is_refusal:
            yield from self._play(self._turn.steps[0])
        yield Started(self._prompt_tokens, self._turn.cached_tokens)
        for step in self._turn.steps:
            yield from self._play(step)
            if self._cut is not None:
                break
        yield self._finished()

    def _play(self, step: Step) -> Iterator[GenerationEvent | Silence]:
        match step:
            case Delay(seconds):
                yield seconds
            case Progress(processed_tokens):
                yield PromptProgress(min(processed_tokens, self._prompt_tokens), self._prompt_tokens)
            case Fail(error, facts):
                raise rebuild(error, facts)
            case _:
                for event in self._speak(step):
                    yield event
                    yield self._pause

    def _speak(self, step: Say | Think | Call) -> Iterator[GenerationEvent]:
        match step:
            case Say(text):
                yield from map(TextDelta, self._chunks(self._until_stop(text)))
            case Think(text, signature):
                yield from map(ThinkingDelta, self._chunks(text))
                yield ThinkingFinished(signature)
            case Call():
                yield from self._call(step)

    def _call(self, call: Call) -> Iterator[GenerationEvent]:
        call_id = call.id or f"toolu_{uuid.uuid4().hex[:24]}"
        self._has_called = True
        yield ToolCallStarted(call_id, call.name)
        arguments = _json(call.arguments)
        width = 8 * self._chunk_words
        for start in range(0, len(arguments), width):
            self._num_said += 1
            yield ToolCallDelta(call_id, arguments[start : start + width])
        yield ToolCallFinished(call_id)

    def _until_stop(self, text: str) -> str:
        found = [(text.find(stop), stop) for stop in self._stops if stop and stop in text]
        if not found:
            return text
        end, self._stop_string = min(found)
        self._cut = "stop_string"
        return text[:end]

    def _chunks(self, text: str) -> Iterator[str]:
        words = _WORD.findall(text)
        # A call is never cut, so it may have said more than the budget.
        left = max(0, self._budget_tokens - self._num_said)
        if len(words) > left:
            words, self._cut, self._stop_string = words[:left], self._budget_reason, None
        for start in range(0, len(words), self._chunk_words):
            chunk = words[start : start + self._chunk_words]
            self._num_said += len(chunk)
            yield "".join(chunk)

    def _finished(self) -> Finished:
        played: FinishReason = self._turn.finish or ("tool_calls" if self._has_called else "stop")
        usage = Usage(self._prompt_tokens, self._turn.cached_tokens, self._num_said)
        return Finished(self._cut or played, usage, self._stop_string)
