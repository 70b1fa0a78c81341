"""Model text to events: every family, whatever the cuts, and nothing lost on the way."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_outputs import BROKEN_CALLS, HARMONY, HERMES, LLAMA, MISTRAL, PHI, TOOLS, TRANSCRIPTS, Play, Transcript
from pensieve.generation import TextDelta, ThinkingDelta, ToolCallDelta, ToolCallFinished, ToolCallStarted
from pensieve.inference.parsing.grammar import MESSAGE, OutputGrammar
from pensieve.inference.parsing.parser import OutputParser

FRAGMENTS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "[", "]", ","),
    *('{"name": "a", "arguments": {', '"name"', '"arguments"', "{", "}", ": ", '"', "\\", "\n", " ", "a", "1", ";"),
    *("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|call|>", "analysis", "final", "assistant"),
    *(" to=functions.a", "json", "<|constrain|>", "<|tool_call|>", "<|/tool_call|>", "STOP", "ST", "word " * 60),
)
OUTPUTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
GRAMMARS = st.sampled_from([HERMES, MISTRAL, LLAMA, PHI, HARMONY])
CUTS = st.lists(st.integers(0, 200), max_size=12)
transcripts = pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS)


def pieces(text: str, cuts: list[int]) -> list[str]:
    """The text, cut at these places."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def common_length(left: str, right: str) -> int:
    """How long both are the same."""
    return next(
        (at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), min(len(left), len(right))
    )


@transcripts
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_what_a_model_writes_is_understood_in_pieces_of_any_size(transcript: Transcript, size: int) -> None:
    """Thinking, text and calls come apart as they were meant, and an answer that ended in calls says so."""
    written = transcript.written
    said = Play(transcript.grammar, [written[at : at + size] for at in range(0, len(written), size)])
    assert (said.thinking, said.text, tuple(said.calls)) == (transcript.thinking, transcript.text, transcript.calls)
    assert said.ending == (None, "tool_calls" if transcript.calls else None)


@transcripts
def test_an_answer_that_is_cut_anywhere_is_understood_up_to_there(transcript: Transcript) -> None:
    """Whole calls stay; beyond what was meant, only a call or a marker that is cut in two is shown."""
    for size in range(len(transcript.written)):
        written = transcript.written[:size]
        said = Play(transcript.grammar, [written])
        assert said.calls == list(transcript.calls[: len(said.calls)])
        for shown, meant in ((said.thinking, transcript.thinking), (said.text, transcript.text)):
            rest = shown[common_length(shown, meant) :]
            assert written.endswith(rest) or rest.startswith("to=functions.")
            assert len(rest) < len(MESSAGE) or transcript.calls


@given(GRAMMARS, OUTPUTS, CUTS)
@example(HARMONY, ' to=functions.a<|message|>{"a": 1}\nit is final', [])
def test_chunk_boundaries_change_nothing(grammar: OutputGrammar, text: str, cuts: list[int]) -> None:
    """Any output, malformed or not: the same parts and the same ending, whole, in pieces and byte by byte."""
    whole = Play(grammar, [text], ("STOP",))
    for said in (Play(grammar, pieces(text, cuts), ("STOP",)), Play(grammar, text, ("STOP",))):
        assert (said.parts, said.ending) == (whole.parts, whole.ending)


@given(GRAMMARS.filter(lambda grammar: grammar.style == "tags"), OUTPUTS)
def test_nothing_but_markup_and_white_space_disappears(grammar: OutputGrammar, text: str) -> None:
    """Every word of the output is in the thinking, the text or a call."""
    said = Play(grammar, [text])
    kept = said.thinking + said.text + "".join(f"{name}{arguments}" for name, arguments in said.calls)
    assert kept.count("word") == text.count("word")


@pytest.mark.parametrize(("grammar", "written"), BROKEN_CALLS.values(), ids=BROKEN_CALLS)
def test_a_broken_call_becomes_text(grammar: OutputGrammar, written: str) -> None:
    """It is shown as it was written, never swallowed, and does not count as a call."""
    for said in (Play(grammar, [written]), Play(grammar, written)):
        assert (said.text, said.calls, said.ending) == (written, [], (None, None))


def test_a_broken_call_in_a_channel_becomes_text_with_its_recipient() -> None:
    """The header's markers are left out: in the next prompt they would be markers again."""
    said = Play(HARMONY, ["<|channel|>commentary to=functions.a json<|message|>{oops}<|call|>"])
    assert said.text == "to=functions.a {oops}"


def test_a_recipient_that_is_no_tool_of_ours_makes_no_call() -> None:
    """Not even in the thinking channel: it is shown with what it was sent."""
    said = Play(HARMONY, ["<|channel|>analysis to=python code<|message|>print(1)<|call|>"])
    assert (said.thinking, said.text, said.calls) == ("", "to=python print(1)", [])


def test_what_follows_a_call_in_place_of_its_closer_is_text() -> None:
    """The call was complete; the rest is shown as it is."""
    said = Play(HERMES, '<tool_call>{"name": "a"}</tool_x> and on')
    assert (said.calls, said.text) == ([("a", {})], "</tool_x> and on")


def test_a_body_that_is_cut_before_it_was_marked_stays_in_its_channel() -> None:
    """What is not part of the header was said."""
    said = Play(HARMONY, "<|channel|>analysis We should")
    assert (said.thinking, said.text) == ("We should", "")


def test_empty_thinking_is_no_event() -> None:
    """Templates write an empty block where thinking is off, and models repeat it."""
    assert Play(HERMES, "<think>\n\n</think>\n\n").events == []
    assert Play(HARMONY, "<|channel|>analysis<|message|><|end|>").events == []


def test_arguments_are_handed_on_as_they_are_written() -> None:
    """Only the arguments' own JSON, from the moment the name is known."""
    parser = OutputParser(HERMES, new_call_id=lambda: "x")
    assert parser.feed('<tool_call>{"name": "weather", "arguments": ') == []
    assert parser.feed('{"ci') == [ToolCallStarted("x", "weather"), ToolCallDelta("x", '{"ci')]
    assert parser.feed('ty": "Paris"}') == [ToolCallDelta("x", 'ty": "Paris"}'), ToolCallFinished("x")]
    assert parser.feed("}</tool_call>") + parser.flush() == []


def test_what_can_be_shown_is_shown_at_once() -> None:
    """Only what may be a marker waits."""
    parser = OutputParser(HERMES, new_call_id=lambda: "x")
    assert parser.feed("<think>One") == [ThinkingDelta("One")]
    parser.feed("</think>")
    assert parser.feed("a <too") == [TextDelta("a")]
    assert parser.feed("l b") == [TextDelta(" <tool b")]


def test_a_stop_string_ends_the_answer_and_nothing_else() -> None:
    """It is not looked for in thinking or arguments, nor across a call."""
    written = '<think>STOP</think>a ST<tool_call>{"name": "STOP", "arguments": {"a": "STOP"}}</tool_call>OP bSTOP c'
    for said in (Play(HERMES, [written], ("STOP",)), Play(HERMES, written, ("STOP",))):
        assert (said.thinking, said.text, said.calls) == ("STOP", "a STOP b", [("STOP", {"a": "STOP"})])
        assert said.ending == ("STOP", "stop_string")


def test_nothing_is_said_after_a_stop_string() -> None:
    """Neither text nor calls."""
    said = Play(HERMES, ['a. b<tool_call>{"name": "b"}</tool_call>'], (".",))
    assert (said.text, said.calls) == ("a", [])


def test_without_tools_on_offer_a_call_is_text() -> None:
    """A model that is asked for such JSON may write it."""
    written = '{"name": "weather", "parameters": {"city": "Paris"}}'
    assert Play(LLAMA.after("", tools=()), [written]).text == written
    channels = HARMONY.after("<|start|>assistant", tools=())
    said = Play(channels, ['<|channel|>commentary to=functions.a json<|message|>{"city": "Paris"}<|call|>'])
    assert (said.text, said.calls) == ('to=functions.a {"city": "Paris"}', [])


def test_each_call_has_an_id_of_its_own() -> None:
    """The model's ids are not taken over."""
    written = TRANSCRIPTS["a list of calls"].written
    started = [event.id for event in Play(MISTRAL, [written]).events if isinstance(event, ToolCallStarted)]
    assert started == ["call1", "call2"]


def test_a_prefilled_answer_goes_on_where_the_prompt_ended() -> None:
    """The prompt's own header counts, its text is not said again."""
    grammar = HARMONY.after("<|start|>assistant<|channel|>final<|message|>So", tools=TOOLS)
    assert Play(grammar, [" it is.<|return|>"]).text == " it is."
    assert HARMONY.after("<|start|>user<|message|>So?<|end|>", tools=TOOLS).opening == ""
    assert HERMES.after("<|im_start|>assistant\n<think>\n", tools=TOOLS).starts_in_thinking
    assert not HERMES.after("<think>\n\n</think>\n\n", tools=TOOLS).starts_in_thinking
