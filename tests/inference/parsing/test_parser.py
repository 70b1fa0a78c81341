"""Model text to events: every family, whatever the cuts, and nothing lost on the way."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_outputs import (
    BROKEN_CALLS,
    ELEMENTS,
    HARMONY,
    HERMES,
    LLAMA,
    MISTRAL,
    PAIRS,
    PHI,
    PLAIN_HARMONY,
    TERMS,
    TOOLS,
    TRANSCRIPTS,
    Play,
    Transcript,
)
from pensieve.generation import (
    GenerationRequest,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolChoice,
)
from pensieve.inference.parsing.grammar import MESSAGE, OutputGrammar
from pensieve.inference.parsing.parser import OutputParser, new_call_id
from pensieve.prompts.tools import call_text

FRAGMENTS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "[", "]", ","),
    *('{"name": "a", "arguments": {', '"name"', '"arguments"', "{", "}", ": ", '"', "\\", "\n", " ", "a", "1", ";"),
    *("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|call|>", "analysis", "final", "assistant"),
    *("<function=a>", "</function>", "<parameter=b>", "</parameter>", "<arg_key>", "</arg_key>", "<arg_value>"),
    *("</arg_value>", "<|tool_call>", "<tool_call|>", "call:a{", "b:", '<|"|>', "True"),
    *(" to=functions.a", "json", "<|constrain|>", "<|tool_call|>", "<|/tool_call|>", "STOP", "ST", "word " * 60),
)
OUTPUTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
GRAMMARS = st.sampled_from([HERMES, MISTRAL, LLAMA, PHI, HARMONY, PLAIN_HARMONY, ELEMENTS, PAIRS, TERMS])
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


@pytest.mark.parametrize(("choice", "num_calls"), [("none", 0), ("auto", 1), ("any", 1)])
def test_a_request_that_lets_nothing_be_called_gets_text(
    choice: Literal["none", "auto", "any"], num_calls: int
) -> None:
    """Although the prompt tells of the tools."""
    request = GenerationRequest(id="1", model="m", messages=(), tools=TOOLS, tool_choice=ToolChoice(choice))
    written = call_text("weather", {})
    said = Play(HERMES.answering(request, ""), [written])
    assert (len(said.calls), said.text) == (num_calls, "" if num_calls else written)


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


def announced(grammar: OutputGrammar, written: str) -> tuple[str, list[type]]:
    """What a cut answer shows: its text, and the events of calls, whole and letter by letter the same."""
    shown = []
    for pieces in ([written], list(written)):
        said = Play(grammar, pieces, is_cut=True)
        calls = [type(event) for event in said.events if isinstance(event, ToolCallStarted | ToolCallFinished)]
        shown.append((said.text, calls))
        assert said.calls == []
    assert shown[0] == shown[1]
    return shown[0]


CUT = {
    "not yet announced": (HERMES, 'So\n<tool_call>\n{"name": "wea', []),
    "announced": (HERMES, 'So\n<tool_call>\n{"name": "weather", "arguments": {"city": "Pa', [ToolCallStarted]),
    "in a list": (MISTRAL, 'So[TOOL_CALLS][{"name": "weather", "arguments": {"a', [ToolCallStarted]),
    "elements": (ELEMENTS, "So\n<tool_call>\n<function=weather>\n<parameter=city>\nPa", [ToolCallStarted]),
    "pairs": (PAIRS, "So\n<tool_call>wea", []),
    "terms": (TERMS, 'So<|tool_call>call:weather{city:<|"|>P', [ToolCallStarted]),
    "only the opener": (HERMES, "So\n<tool_call>\n", []),
    "a channel": (
        HARMONY,
        "<|channel|>final<|message|>So<|end|><|start|>assistant<|channel|>commentary to=functions.a<|message|>{",
        [ToolCallStarted],
    ),
}


@pytest.mark.parametrize(("grammar", "written", "calls"), CUT.values(), ids=CUT)
def test_a_call_that_the_token_limit_cut_is_left_out(grammar: OutputGrammar, written: str, calls: list[type]) -> None:
    """It is no mistake of the model's, so it is not shown as text: it stays unfinished, or was never announced."""
    assert announced(grammar, written) == ("So", calls)


SCRAPS = (*'<>/{}[]"\\:,|\n\té\U0001f600a ', "</tool_call>", "<tool_call>", "</think>", "</arg_value", "</parameter")
TEXTS = st.lists(st.sampled_from(SCRAPS), max_size=12).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=3), CUTS)
def test_any_argument_comes_back_from_the_plain_format(arguments: dict[str, object], cuts: list[int]) -> None:
    """Whatever it holds: the closer, quotes, braces, line breaks, any character."""
    written = f"So\n{call_text('weather', arguments)}\n{call_text('b', {})}"
    said = Play(HERMES, pieces(written, cuts))
    assert (said.text, said.calls) == ("So", [("weather", arguments), ("b", {})])


@given(TEXTS, st.integers(), CUTS)
def test_any_string_comes_back_from_elements_and_pairs(text: str, number: int, cuts: list[int]) -> None:
    """Strings as they are, all else as JSON, however they are cut."""
    inner = f"<function=weather>\n<parameter=city>\n{text}\n</parameter>\n<parameter=days>\n{number}\n</parameter>"
    pairs = f"<arg_key>city</arg_key>\n<arg_value>{text}</arg_value>\n<arg_key>days</arg_key>"
    meant = [("weather", {"city": text, "days": number})]
    elements = f"<tool_call>\n{inner}\n</function>\n</tool_call>"
    assert Play(ELEMENTS, pieces(elements, cuts)).calls == meant
    assert (
        Play(PAIRS, pieces(f"<tool_call>weather\n{pairs}<arg_value>{number}</arg_value>\n</tool_call>", cuts)).calls
        == meant
    )


@given(TEXTS, CUTS)
def test_any_string_without_its_mark_comes_back_from_terms(text: str, cuts: list[int]) -> None:
    """Nothing else is special in it."""
    written = f'<|tool_call>call:weather{{city:<|"|>{text}<|"|>,days:-3}}<tool_call|>'
    assert Play(TERMS, pieces(written, cuts)).calls == [("weather", {"city": text, "days": -3})]


def test_strings_of_elements_are_handed_on_while_they_are_written() -> None:
    """As JSON, piece by piece; only what may be the closer waits."""
    parser = OutputParser(ELEMENTS, new_call_id=lambda: "x")
    parser.feed("<tool_call>\n<function=weather>\n<parameter=city>\n")
    assert parser.feed('a "b') == [ToolCallDelta("x", 'a \\"b')]
    assert parser.feed("\n") == []
    assert parser.feed("c</para") == [ToolCallDelta("x", "\\nc")]
    assert parser.feed("meter>") == []


def test_a_call_inside_thinking_stays_thinking() -> None:
    """The model only thinks about it."""
    said = Play(HERMES, '<think>I could <tool_call>{"name": "a"}</tool_call></think>No.')
    assert (said.thinking, said.text, said.calls) == ('I could <tool_call>{"name": "a"}</tool_call>', "No.", [])


def test_a_name_that_no_tool_has_makes_no_call() -> None:
    """JSON that an answer begins with is an answer."""
    for grammar in (LLAMA, MISTRAL):
        written = f'{grammar.calls[-1].opener}{{"name": "Bob", "parameters": {{"age": 3}}}}'
        said = Play(grammar.after("", tools=TOOLS), [written])
        assert (said.text, said.calls) == (written, [])


def test_ids_of_calls_are_unlike_each_other() -> None:
    """Whoever made them: clients drop the second of two that are the same."""
    ids = {new_call_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(call_id.startswith("toolu_") for call_id in ids)
