"""A script: what a stand-in for a model says, when, and where it fails. Values and their loader; plays nothing.

The format is told in docs/scripts.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from pensieve.errors import ConfigurationError, Facts, UsageError, rebuild
from pensieve.generation import FinishReason
from pensieve.messages import Json
from pensieve.models.spec import Capability, ModelSpec

Seconds = Annotated[float, Meta(ge=0.0, le=86_400.0)]
Tokens = Annotated[int, Meta(ge=0, le=2**31)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Say(msgspec.Struct, frozen=True, tag="text", forbid_unknown_fields=True):
    """Words of the answer."""

    text: str


class Think(msgspec.Struct, frozen=True, tag="thinking", forbid_unknown_fields=True):
    """One block of thinking."""

    text: str
    signature: str = ""


class Call(msgspec.Struct, frozen=True, tag="tool_call", forbid_unknown_fields=True):
    """One tool call; an empty id means a fresh one each time, as clients need."""

    name: str
    arguments: dict[str, Json] = {}
    id: str = ""


class Delay(msgspec.Struct, frozen=True, tag="delay", forbid_unknown_fields=True):
    """Silence."""

    seconds: Seconds


class Progress(msgspec.Struct, frozen=True, tag="progress", forbid_unknown_fields=True):
    """Prefill has come this far."""

    processed_tokens: Tokens


class Fail(msgspec.Struct, frozen=True, tag="fail", forbid_unknown_fields=True):
    """The request ends here, with the error of that name and facts."""

    error: str
    facts: Facts = {}

    def __post_init__(self) -> None:
        """Refuse a name or facts that no error of the tree has."""
        try:
            error = rebuild(self.error, self.facts)
        except TypeError as problem:
            raise ValueError(f"facts of {self.error}: {problem}") from problem
        if error.code != self.error or isinstance(error, UsageError):
            raise ValueError(f"{self.error!r} is not an error a request can end with")


Step = Say | Think | Call | Delay | Progress | Fail


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer. With a condition it answers each request that meets it; without, it waits for its place in line."""

    steps: tuple[Step, ...] = ()
    contains: str = ""
    """Met when the last user message has this text in it."""
    pattern: Annotated[str, Meta(max_length=500)] = ""
    """Met when this regular expression is found in the last user message."""
    after_tool_result: bool | None = None
    """Met when the last user message has (true) or has not (false) a tool result in it."""
    times: Count | None = None
    """A turn with a condition answers so many requests, and is passed over from then on; None: all of them."""
    delay_before_start_seconds: Seconds = 0.0
    """How long the request waits in the queue, before `Started`."""
    prompt_tokens: Tokens | None = None
    cached_tokens: Tokens = 0
    chunk_words: Count | None = None
    chunk_delay_seconds: Seconds | None = None
    finish: FinishReason | None = None

    def __post_init__(self) -> None:
        """Refuse a pattern that is no regular expression, and a count where nothing is counted."""
        try:
            re.compile(self.pattern)
        except re.error as problem:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {problem}") from problem
        if self.times is not None and not self.is_conditional:
            raise ValueError("`times` needs a condition: a turn in line answers once a round")

    @property
    def is_conditional(self) -> bool:
        """Whether the turn answers by condition and not in line."""
        return bool(self.contains or self.pattern) or self.after_tool_result is not None

    @property
    def is_refusal(self) -> bool:
        """Whether the request is turned away before it starts: the first step is a failure."""
        return bool(self.steps) and isinstance(self.steps[0], Fail)

    def is_met(self, words: str, *, has_tool_result: bool) -> bool:
        """Whether every condition of the turn holds."""
        return (
            self.contains in words
            and (not self.pattern or re.search(self.pattern, words) is not None)
            and self.after_tool_result in (None, has_tool_result)
        )


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All turns, and what the stand-in for a model claims to be."""

    turns: Annotated[tuple[Turn, ...], Meta(min_length=1)]
    model: str = "scripted"
    context_tokens: Count = 32_768
    max_output_tokens: Count = 4_096
    capabilities: tuple[Capability, ...] = ("thinking", "tools")
    chunk_words: Count = 1
    """Words in each piece of text; tool arguments come in pieces of eight characters a word."""
    chunk_delay_seconds: Seconds = 0.0

    @classmethod
    def example(cls) -> Script:
        """A script for demos: it says what it is, thinking first, at a reader's pace."""
        opening = Think("The reader wants to see how an answer arrives, so a short one will do.")
        answer = Say("This is a scripted answer: no model is loaded, yet every part around the model is real.")
        return cls(turns=(Turn(steps=(opening, answer), delay_before_start_seconds=0.3, chunk_delay_seconds=0.04),))

    @classmethod
    def saying(cls, *texts: str) -> Script:
        """A script that answers with these texts, one a request."""
        return cls(turns=tuple(Turn(steps=(Say(text),)) for text in texts))

    @property
    def spec(self) -> ModelSpec:
        """The model this script stands in for."""
        return ModelSpec(
            name=self.model,
            location="",
            format="script",
            architecture="script",
            context_tokens=self.context_tokens,
            capabilities=self.capabilities,
        )


def load_script(path: Path) -> Script:
    """The script in a TOML or JSON file; raises `ConfigurationError` naming the field that is wrong."""
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".json":
            return msgspec.json.decode(content, type=Script)
        return msgspec.toml.decode(content, type=Script)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path.name}: {error.strerror}", "script", "command line") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(error), "script", path.name) from error
