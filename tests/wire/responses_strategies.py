"""Hypothesis strategies: every request and every run of events that the Responses API can say."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from hypothesis import strategies as st

from pensieve.generation import (
    Answer,
    Finished,
    GenerationEvent,
    GenerationRequest,
    TextDelta,
    Thinking,
    ThinkingFinished,
    TokenLogprob,
    ToolCallFinished,
    ToolChoice,
)
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Message,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)
from pensieve.wire.openai.effort import BUDGETS
from wire.strategies import bytes_, event_runs, image_types, json_objects, reasons, sampling, texts, usages, words

signatures = st.just("") | words.filter(lambda word: not word.startswith("pensieve"))
text_parts = st.builds(TextPart, texts)
spoken_texts = st.builds(TextPart, words)
addresses = words.map(lambda word: f"https://x/{word}")
image_parts = st.builds(ImagePart, image_types, bytes_) | st.builds(ImagePart, url=addresses)
document_parts = (
    st.builds(DocumentPart, st.just("application/pdf"), bytes_, title=texts)
    | st.builds(DocumentPart, st.just("text/plain"), words.map(str.encode), title=texts)
    | st.builds(DocumentPart, url=words, title=texts)
)
contents = st.one_of(text_parts, image_parts, document_parts)
results = st.builds(ToolResultPart, words, st.lists(contents, max_size=3).map(tuple))
calls = st.builds(ToolCallPart, words, words, json_objects)
thoughts = st.builds(ThinkingPart, words, signatures)
answer_parts = st.one_of(text_parts, thoughts, calls)
alternatives = st.lists(st.tuples(st.integers(0, 99), texts, st.floats(-9, 0)), max_size=2).map(tuple)
logprobs = st.lists(st.builds(TokenLogprob, st.integers(0, 99), texts, st.floats(-9, 0), alternatives), max_size=2).map(
    tuple
)
sealed_thoughts = st.builds(RedactedThinkingPart, words.filter(lambda word: not word.startswith("pensieve")))

said = st.builds(Message, st.just("assistant"), st.lists(answer_parts | sealed_thoughts, min_size=1).map(tuple))
given = st.builds(Message, st.just("user"), st.lists(results, min_size=1, max_size=3).map(tuple))
asked = st.builds(
    Message,
    st.just("user"),
    st.lists(contents, min_size=1, max_size=3)
    .filter(lambda parts: any(part != TextPart("") for part in parts))
    .map(tuple),
)
ruled = st.builds(Message, st.just("system"), st.lists(spoken_texts, min_size=1, max_size=2).map(tuple))
tools = st.builds(ToolSpec, words, json_objects.filter(bool), texts, st.booleans())
efforts = st.sampled_from(
    [Thinking("disabled"), Thinking("adaptive"), *(Thinking("enabled", b) for b in BUDGETS.values())]
)


def _is_apart(messages: list[Message]) -> bool:
    """No two answers, and no two runs of results, stand side by side: the format says them as one."""
    kinds = [(each.role, isinstance(each.parts[0], ToolResultPart)) for each in messages]
    return not any(a == b and (a[0] == "assistant" or a[1]) for a, b in pairwise(kinds))


conversations = st.lists(st.one_of(said, given, asked, ruled), max_size=4).filter(_is_apart)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Requests with something to answer and a tool choice that fits; id and deadline do not travel."""
    specs = tuple(draw(st.lists(tools, max_size=3, unique_by=lambda tool: tool.name)))
    modes: list[Literal["auto", "any", "tool", "none"]] = ["auto", "none"]
    mode = draw(st.sampled_from([*modes, "any", "tool"] if specs else modes))
    name = draw(st.sampled_from(specs)).name if mode == "tool" else ""
    return GenerationRequest(
        id="req_1",
        model=draw(words),
        messages=(*draw(conversations), draw(asked)),
        tools=specs,
        tool_choice=ToolChoice(mode, name, draw(st.booleans())),
        sampling=draw(sampling),
        max_tokens=draw(st.none() | st.integers(1, 10**7)),
        stop=tuple(draw(st.lists(words, max_size=2))),
        thinking=draw(st.none() | efforts),
        output_schema=draw(st.none() | json_objects),
        num_logprobs=draw(st.none() | st.integers(0, 20)),
        affinity_key=draw(words),
    )


def _end(finished: Finished, *, has_calls: bool) -> Finished:
    """The end as the format says it: calls are seen, and a stop string stands where the reason is one."""
    if finished.reason in ("stop", "tool_calls"):
        return Finished("tool_calls" if has_calls else "stop", finished.usage)
    return finished if finished.reason == "stop_string" else Finished(finished.reason, finished.usage)


@st.composite
def ends(draw: st.DrawFn, *, has_calls: bool) -> Finished:
    """Every end of an answer that has calls, or none."""
    return _end(Finished(draw(reasons), draw(usages()), draw(words)), has_calls=has_calls)


@st.composite
def runs(draw: st.DrawFn) -> list[GenerationEvent]:
    """All events of one answer, with an end that the format can say."""
    events = draw(event_runs())
    has_calls = any(isinstance(event, ToolCallFinished) for event in events)
    told = [_told(event, draw(signatures), draw(logprobs)) for event in events[:-1]]
    return [*told, draw(ends(has_calls=has_calls))]


def _told(event: GenerationEvent, signature: str, likely: tuple[TokenLogprob, ...]) -> GenerationEvent:
    match event:
        case ThinkingFinished():
            return ThinkingFinished(signature)
        case TextDelta(text):
            return TextDelta(text, likely)
        case _:
            return event


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Whole answers with an end that the format can say; texts in a row are one."""
    parts = draw(st.lists(st.one_of(spoken_texts, thoughts, calls), max_size=5))
    apart = tuple(part for at, part in enumerate(parts) if at == 0 or not _are_texts(part, parts[at - 1]))
    has_calls = any(isinstance(part, ToolCallPart) for part in apart)
    end = draw(ends(has_calls=has_calls))
    has_text = any(isinstance(part, TextPart) for part in apart)
    return Answer(
        Message("assistant", apart), end.reason, end.usage, end.stop_string, draw(logprobs) if has_text else ()
    )


def _are_texts(*parts: object) -> bool:
    return all(isinstance(part, TextPart) for part in parts)
