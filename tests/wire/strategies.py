"""Hypothesis strategies: every request and every run of events that the wire can carry."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from pensieve.generation import (
    Answer,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Started,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolChoice,
    Usage,
)
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Message,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReferencePart,
    ToolResultPart,
    ToolSpec,
)
from pensieve.sampling.params import RANGES, SamplingParams

PROPERTY = settings(deadline=None, max_examples=60)
"""Shared machines are slow now and then: no property here is about time."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
bytes_ = st.binary(min_size=1, max_size=8)
integers = st.integers(-(2**63), 2**64 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)

text_parts = st.builds(TextPart, texts)
image_types = st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp"])
image_parts = st.builds(ImagePart, image_types, bytes_) | st.builds(ImagePart, url=words)
document_parts = (
    st.builds(DocumentPart, st.just("application/pdf"), bytes_, title=texts, context=texts)
    | st.builds(DocumentPart, st.just("text/plain"), words.map(str.encode), title=texts, context=texts)
    | st.builds(DocumentPart, url=words, title=texts, context=texts)
)
result_parts = st.one_of(text_parts, image_parts, document_parts, st.builds(ToolReferencePart, words))
tool_result_parts = st.builds(ToolResultPart, words, st.lists(result_parts, max_size=3).map(tuple), st.booleans())
tool_call_parts = st.builds(ToolCallPart, words, words, json_objects)
thinking_parts = st.builds(ThinkingPart, texts, texts)
answer_parts = st.one_of(text_parts, thinking_parts, tool_call_parts)
assistant_parts = answer_parts | st.builds(RedactedThinkingPart, texts)
user_parts = st.one_of(text_parts, image_parts, document_parts, tool_result_parts)


def _messages(role: str, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(Message, st.just(role), st.lists(parts, max_size=3).map(tuple))


spoken = st.one_of(
    _messages("user", user_parts).filter(lambda message: any(part != TextPart("") for part in message.parts)),
    _messages("assistant", assistant_parts),
)
messages = spoken | st.builds(Message, st.just("system"), st.lists(st.builds(TextPart, words), min_size=1).map(tuple))
tools = st.builds(ToolSpec, words, json_objects, texts, st.booleans(), st.booleans())
thinking = st.builds(
    Thinking,
    st.sampled_from(["enabled", "adaptive", "disabled"]),
    st.none() | st.integers(1, 10**6),
    st.booleans(),
)
sampling = st.builds(
    SamplingParams,
    **{
        name: st.none()
        | (st.integers(int(low), int(high)) if name in ("top_k", "seed") else st.floats(low, high, allow_nan=False))
        for name, (low, high) in RANGES.items()
    },
)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Requests with something to answer and a tool choice that fits; id, affinity key and deadline do not travel."""
    specs = tuple(draw(st.lists(tools, max_size=3, unique_by=lambda tool: tool.name)))
    modes: list[Literal["auto", "any", "tool", "none"]] = ["auto", "none"]
    mode = draw(st.sampled_from([*modes, "any", "tool"] if specs else modes))
    name = draw(st.sampled_from(specs)).name if mode == "tool" else ""
    before, after = draw(st.lists(messages, max_size=2)), draw(st.lists(messages, max_size=1))
    return GenerationRequest(
        id="req_1",
        model=draw(words),
        messages=(*before, draw(spoken), *after),
        tools=specs,
        tool_choice=ToolChoice(mode, name, draw(st.booleans())),
        sampling=draw(sampling),
        max_tokens=draw(st.none() | st.integers(1, 10**7)),
        stop=tuple(draw(st.lists(words, max_size=2))),
        thinking=draw(st.none() | thinking),
        output_schema=draw(st.none() | json_objects),
    )


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Counts in which the cached part is no more than the prompt."""
    prompt = draw(st.integers(0, 10**6))
    return Usage(prompt, draw(st.integers(0, prompt)), draw(st.integers(0, 10**6)))


reasons = st.sampled_from(get_args(FinishReason))


@st.composite
def _segments(draw: st.DrawFn) -> list[GenerationEvent]:
    fragments = draw(st.lists(words, min_size=1, max_size=3))
    match draw(st.sampled_from(["text", "thinking", "tool"])):
        case "text":
            return [TextDelta(text) for text in fragments]
        case "thinking":
            return [*(ThinkingDelta(text) for text in fragments), ThinkingFinished(draw(texts))]
        case _:
            call_id = draw(words)
            arguments = msgspec.json.encode(draw(json_objects)).decode()
            cut = draw(st.integers(1, len(arguments)))
            pieces = [piece for piece in (arguments[:cut], arguments[cut:]) if piece]
            deltas = [ToolCallDelta(call_id, piece) for piece in pieces]
            return [ToolCallStarted(call_id, draw(words)), *deltas, ToolCallFinished(call_id)]


@st.composite
def event_runs(draw: st.DrawFn) -> list[GenerationEvent]:
    """All events of one answer, from `Started` to `Finished`."""
    said = [event for segment in draw(st.lists(_segments(), max_size=5)) for event in segment]
    started, ended = draw(usages()), draw(usages())
    finished = Finished(draw(reasons), ended, draw(st.none() | words))
    return [Started(started.prompt_tokens, started.cached_tokens), *said, finished]


answers = st.builds(Answer, _messages("assistant", answer_parts), reasons, usages(), st.none() | words)
