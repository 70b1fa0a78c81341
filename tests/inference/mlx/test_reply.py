"""From tokens to events: the same whether items come one by one or all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pensieve.errors import BackendFailure
from pensieve.generation import (
    Finished,
    FinishReason,
    GenerationEvent,
    PromptProgress,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    Timings,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.inference.mlx.reply import Reply
from pensieve.inference.mlx.runner import Probabilities
from pensieve.inference.mlx.sequence import Began, Ended, Failed, Item, Read, Spoke
from pensieve.inference.mlx.tokenizer import MlxTokenizer
from pensieve.inference.parsing.grammar import THINK_TAGS, TOOL_CALL_TAGS, OutputGrammar
from pensieve.inference.parsing.parser import OutputParser
from pensieve.messages import ToolSpec

ENDED = Ended("stop", Timings(decode_seconds=1.0))
PLAIN = OutputGrammar()
THINKS = OutputGrammar(thinking=THINK_TAGS)


@pytest.fixture(scope="module")
def tokenizer(folder_of: Callable[..., Path]) -> MlxTokenizer:
    """One token a byte, and the family's markers."""
    return MlxTokenizer.open(folder_of("qwen3"))


def reply_to(tokenizer: MlxTokenizer, grammar: OutputGrammar = PLAIN, *, stop: str = "", turn_stop: str = "") -> Reply:
    """A reply to a prompt of ten tokens."""
    stops = tuple(filter(None, (stop, turn_stop)))
    tools = (ToolSpec("look", {"type": "object"}),) if grammar.calls else ()
    parser = OutputParser(grammar.after("", tools=tools), new_call_id=lambda: "id", stop=stops)
    return Reply(10, parser, tokenizer, turn_stop=(turn_stop,) if turn_stop else ())


def spoken(tokenizer: MlxTokenizer, text: str, *, has_logprobs: bool = False) -> list[Item]:
    """The text's tokens."""
    tokens = tokenizer.encode(text, adds_special=False)
    probabilities = Probabilities(-0.5, ((7, -0.25),)) if has_logprobs else None
    return [Spoke(token, probabilities) for token in tokens]


def one_by_one(reply: Reply, items: Iterable[Item]) -> list[GenerationEvent]:
    """Each item in a delivery of its own."""
    return [event for item in items for event in reply.take([item])]


def texts(events: list[GenerationEvent]) -> tuple[str, str]:
    """Thinking and text."""
    thinking = "".join(event.text for event in events if isinstance(event, ThinkingDelta))
    return thinking, "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_answer_becomes_events_in_order(tokenizer: MlxTokenizer, is_whole: bool) -> None:
    """Started with the true sizes, progress, text in as few pieces as deliveries, and how it ended."""
    items = [Began(4), Read(9), *spoken(tokenizer, "Hé, the end."), ENDED]
    reply = reply_to(tokenizer)
    events = reply.take(items) if is_whole else one_by_one(reply, items)
    assert events[:2] == [Started(10, 4), PromptProgress(9, 10)]
    assert texts(events) == ("", "Hé, the end.")
    expected = Finished("stop", Usage(10, 4, len(items) - 3), None, ENDED.timings)
    assert events[-1] == reply.finished == expected
    assert not is_whole or len(events) == 4


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_what_comes_after_a_stop_string_never_was(
    tokenizer: MlxTokenizer, is_whole: bool, reason: FinishReason
) -> None:
    """It is not shown, counted or reported, though the engine may say it, and be full, before it hears."""
    reply = reply_to(tokenizer, stop="END")
    items = [Began(0), *spoken(tokenizer, "no END, the rest", has_logprobs=True), Ended(reason, ENDED.timings)]
    events = reply.take(items) if is_whole else one_by_one(reply, items)
    assert texts(events) == ("", "no ")
    assert reply.has_stopped
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].stop_string) == ("stop_string", "END")
    assert events[-1].usage.completion_tokens == len(spoken(tokenizer, "no END"))


def test_the_end_of_a_turn_in_a_plain_format_is_a_plain_end(tokenizer: MlxTokenizer) -> None:
    """Models without a template go on to write the user's next line; that is where they have ended."""
    reply = reply_to(tokenizer, stop="END", turn_stop="\nUser:")
    events = reply.take([Began(0), *spoken(tokenizer, "Four.\nUser: and"), ENDED])
    assert texts(events) == ("", "Four.")
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].stop_string) == ("stop", None)


@pytest.mark.parametrize("is_whole", [True, False])
def test_probabilities_go_with_their_text_and_those_of_thinking_with_nothing(
    tokenizer: MlxTokenizer, is_whole: bool
) -> None:
    """Token, its text, and the alternatives; the same whatever comes in one delivery."""
    reply = reply_to(tokenizer, THINKS)
    items = [Began(0), *spoken(tokenizer, "<think>so so</think>the end", has_logprobs=True), ENDED]
    events = reply.take(items) if is_whole else one_by_one(reply, items)
    assert texts(events) == ("so so", "the end")
    assert any(isinstance(event, ThinkingFinished) for event in events)
    logprobs = [each for event in events if isinstance(event, TextDelta) for each in event.logprobs]
    assert "".join(each.text for each in logprobs) == "the end"
    assert {each.logprob for each in logprobs} == {-0.5}
    assert logprobs[0].alternatives == ((7, tokenizer.token_text(7), -0.25),)


def test_text_that_was_held_back_comes_with_the_end(tokenizer: MlxTokenizer) -> None:
    """The beginning of a stop string that never came, and of a character that was never finished."""
    reply = reply_to(tokenizer, stop="END")
    broken: list[Item] = spoken(tokenizer, "é")[:1]
    events = reply.take([Began(0), *spoken(tokenizer, "the EN"), *broken])
    assert texts(events) == ("", "the ")
    events += reply.take([Ended("length", ENDED.timings)])
    assert texts(events) == ("", "the EN\ufffd")
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"


def test_a_failure_comes_after_what_was_said_before_it(tokenizer: MlxTokenizer) -> None:
    """The very error of the engine; text of the same delivery is not lost."""
    error = BackendFailure("no numbers")
    reply = reply_to(tokenizer)
    events = reply.take([Began(0), *spoken(tokenizer, "half an"), Failed(error)])
    assert texts(events) == ("", "half an")
    assert (reply.failure, reply.finished) == (error, None)


def test_progress_never_goes_back(tokenizer: MlxTokenizer) -> None:
    """A prompt that stepped back is read again from its beginning, and nobody needs to know."""
    reply = reply_to(tokenizer)
    events = one_by_one(reply, [Began(2), Read(6), Read(4), Read(6), Read(10)])
    assert events == [Started(10, 2), PromptProgress(6, 10), PromptProgress(10, 10)]


@pytest.mark.parametrize(("reason", "shown"), [("length", ""), ("stop", '<tool_call>{"name": "look", "arguments": {')])
def test_a_call_that_the_token_limit_cut_is_not_shown_as_text(
    tokenizer: MlxTokenizer, reason: FinishReason, shown: str
) -> None:
    """Only one that the model left unfinished by itself is."""
    reply = reply_to(tokenizer, OutputGrammar(calls=(TOOL_CALL_TAGS,)))
    written = '<tool_call>{"name": "look", "arguments": {'
    events = reply.take([Began(0), *spoken(tokenizer, written), Ended(reason, Timings())])
    assert texts(events)[1] == shown
    assert [type(event) for event in events if isinstance(event, ToolCallStarted | ToolCallFinished)] == [
        ToolCallStarted
    ]
