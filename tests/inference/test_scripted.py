"""The scripted backend keeps the backend contract, and plays what its script says."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import ConfigurationError, ContextOverflow, Overloaded
from pensieve.generation import Answer, Collector, Finished, GenerationRequest, Started, collect
from pensieve.inference.script import Call, Delay, Fail, Progress, Say, Script, Think, Turn, load_script
from pensieve.inference.scripted import Counts, ScriptedBackend
from pensieve.messages import Message, TextPart, ThinkingPart, ToolCallPart, ToolResultPart, say


def asking(text: str = "hello there", **changes: object) -> GenerationRequest:
    """A request of one user message."""
    fields = {"id": "req_1", "model": "any", "messages": (say("user", text),)} | changes
    return GenerationRequest(**fields)  # type: ignore[arg-type]


async def answer(script: Script, request: GenerationRequest | None = None) -> Answer:
    """What a fresh backend with that script answers."""
    return await collect(ScriptedBackend(script).generate(request or asking()))


async def test_a_turn_plays_thinking_text_and_a_tool_call_in_order() -> None:
    """All kinds of parts arrive whole, and a call ends the turn as a call."""
    steps = (Think("let me see", "SIG"), Say("I read it."), Call("Read", {"path": "/x"}, id="toolu_1"))
    said = await answer(Script(turns=(Turn(steps=steps),)))
    assert said.message.parts == (
        ThinkingPart("let me see", "SIG"),
        TextPart("I read it."),
        ToolCallPart("toolu_1", "Read", {"path": "/x"}),
    )
    assert said.reason == "tool_calls"
    assert said.usage.prompt_tokens == 2


async def test_started_comes_first_and_finished_last() -> None:
    """The contract of every backend, with progress in between."""
    script = Script(turns=(Turn(steps=(Progress(5), Say("a b")), prompt_tokens=9, cached_tokens=4),))
    events = [event async for event in ScriptedBackend(script).generate(asking())]
    assert events[0] == Started(9, 4)
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Started | Finished) for event in events) == 2


async def test_turns_without_a_condition_answer_in_line_and_begin_again() -> None:
    """Three requests to two texts: the first comes twice."""
    backend = ScriptedBackend(Script.saying("one", "two"))
    said = [(await collect(backend.generate(asking()))).message.text for _ in range(3)]
    assert said == ["one", "two", "one"]


async def test_a_turn_that_answers_so_many_times_is_passed_over_then() -> None:
    """Counting the prompt is no answer."""
    turns = (
        Turn(steps=(Say("busy"),), contains="hello", times=2),
        Turn(steps=(Say("here"),), contains="hello", times=1),
        Turn(steps=(Say("bye"),)),
    )
    backend = ScriptedBackend(Script(turns=turns))
    said = []
    for _ in range(4):
        await backend.count_tokens(asking())
        said.append((await collect(backend.generate(asking()))).message.text)
    assert said == ["busy", "busy", "here", "bye"]


async def test_a_condition_wins_over_the_line() -> None:
    """By substring, by regular expression, and by a tool result."""
    turns = (
        Turn(steps=(Say("title"),), contains="short title"),
        Turn(steps=(Say("number"),), pattern=r"\d{3}"),
        Turn(steps=(Say("seen"),), after_tool_result=True),
        Turn(steps=(Say("line"),)),
    )
    backend = ScriptedBackend(Script(turns=turns))
    result = Message("user", (ToolResultPart("toolu_1", (TextPart("done"),)),))
    requests = [asking("a short title, please"), asking("what is 123?"), asking(messages=(result,)), asking("hello")]
    said = [(await collect(backend.generate(request))).message.text for request in requests]
    assert said == ["title", "number", "seen", "line"]


async def test_max_tokens_and_the_context_cut_the_text() -> None:
    """The reason tells which of the two it was."""
    script = Script(turns=(Turn(steps=(Say("one two three four"),)),), context_tokens=5)
    by_request = await answer(script, asking(max_tokens=2))
    by_context = await answer(script, asking(max_tokens=10_000_000))
    assert (by_request.message.text, by_request.reason) == ("one two", "length")
    assert (by_context.message.text, by_context.reason) == ("one two three", "context_full")


async def test_no_text_follows_a_call_that_is_over_the_budget() -> None:
    """A call is never cut; what it took too much does not give the words after it more room."""
    call = Call("Read", {"path": "/a/rather/long/path"}, id="toolu_1")
    script = Script(turns=(Turn(steps=(call, Say("one two three four five six"))),), chunk_words=1)
    said = await answer(script, asking(max_tokens=2))
    assert said.usage.completion_tokens > 2
    assert (said.message.text, said.reason) == ("", "length")


async def test_the_earliest_stop_string_ends_the_text_and_is_named() -> None:
    """What comes after it, later steps included, is not said."""
    script = Script(turns=(Turn(steps=(Say("one. two! three"), Say(" four"))),))
    said = await answer(script, asking(stop=("three", "!", ".x")))
    assert (said.message.text, said.reason, said.stop_string) == ("one. two", "stop_string", "!")


async def test_a_prompt_over_the_context_is_refused_before_it_starts() -> None:
    """The error carries both numbers."""
    with pytest.raises(ContextOverflow, match="prompt is too long: 3 tokens > 2 maximum"):
        await answer(Script(turns=(Turn(),), context_tokens=2), asking("one two three"))


async def test_a_failure_comes_where_the_script_puts_it() -> None:
    """Words before it are delivered, the request counts as failed."""
    backend = ScriptedBackend(Script(turns=(Turn(steps=(Say("one"), Fail("Overloaded", {"problem": "busy"}))),)))
    collector = Collector()

    async def read() -> None:
        async for event in backend.generate(asking()):
            collector.add(event)

    with pytest.raises(Overloaded, match="busy"):
        await read()
    assert collector.message.text == "one"
    assert backend.counts == Counts(accepted=1, failed=1)


async def test_a_failure_in_first_place_comes_before_the_start() -> None:
    """A refusal: the answer never begins."""
    backend = ScriptedBackend(Script(turns=(Turn(steps=(Fail("Overloaded", {"problem": "busy"}), Say("one"))),)))
    with pytest.raises(Overloaded, match="busy"):
        await anext(backend.generate(asking()))


@pytest.mark.parametrize("turn", [Turn(delay_before_start_seconds=3600), Turn(steps=(Delay(3600),))])
async def test_cancelling_counts_as_cancelled_in_the_queue_and_later(turn: Turn) -> None:
    """A reader that is cancelled while it waits ends the request at once."""
    backend = ScriptedBackend(Script(turns=(turn,)))
    reader = asyncio.create_task(collect(backend.generate(asking())))
    await backend.until(running=1)
    reader.cancel()
    await asyncio.wait([reader])
    assert backend.counts == Counts(accepted=1, cancelled=1)


async def test_closing_the_generator_between_events_counts_as_cancelled() -> None:
    """Who stops reading early gives the slot back."""
    backend = ScriptedBackend(Script.saying("one two three"))
    async with aclosing(backend.generate(asking())) as events:
        await anext(events)
    assert backend.counts == Counts(accepted=1, cancelled=1)


async def test_count_tokens_agrees_with_started_and_takes_no_turn() -> None:
    """Counting is not answering."""
    backend = ScriptedBackend(Script(turns=(Turn(prompt_tokens=7), Turn(prompt_tokens=8))))
    assert await backend.count_tokens(asking()) == 7
    assert await anext(backend.generate(asking())) == Started(7, 0)
    assert await backend.count_tokens(asking()) == 8


@given(text=st.text(max_size=200), chunk_words=st.integers(1, 7))
async def test_no_character_is_lost_at_any_chunk_size(text: str, chunk_words: int) -> None:
    """The pieces join to the text, whatever white space is in it."""
    said = await answer(Script(turns=(Turn(steps=(Say(text),)),), chunk_words=chunk_words))
    assert said.message.text == text


TOML_SCRIPT = """
model = "stand-in"
[[turns]]
contains = "weather"
steps = [
    {type = "delay", seconds = 1},
    {type = "tool_call", name = "weather", arguments = {city = "Rome"}},
]
"""


def test_toml_and_json_scripts_are_the_same_values(tmp_path: Path) -> None:
    """The file's ending decides how it is read."""
    json = (
        '{"model": "stand-in", "turns": [{"contains": "weather", "steps": [{"type": "delay", "seconds": 1},'
        '{"type": "tool_call", "name": "weather", "arguments": {"city": "Rome"}}]}]}'
    )
    (tmp_path / "s.toml").write_text(TOML_SCRIPT)
    (tmp_path / "s.json").write_text(json)
    assert load_script(tmp_path / "s.toml") == load_script(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("turns = []", r"turns"),
        ("nonsense", r"s.toml"),
        ('[[turns]]\npattern = "("', r"turns\[0\].*regular expression|regular expression.*turns\[0\]"),
        ('[[turns]]\nsteps = [{type = "text", words = "x"}]', r"words"),
        ('[[turns]]\nsteps = [{type = "fail", error = "Nope"}]', r"Nope"),
        ('[[turns]]\nsteps = [{type = "fail", error = "DiskFull", facts = {problem = "x"}}]', r"DiskFull"),
        ('[[turns]]\nsteps = [{type = "fail", error = "Overloaded", facts = {wrong = 1}}]', r"wrong"),
    ],
)
def test_a_wrong_script_is_refused_with_the_place_of_the_mistake(tmp_path: Path, content: str, words: str) -> None:
    """The sentence names the file and the field."""
    (tmp_path / "s.toml").write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        load_script(tmp_path / "s.toml")


def test_a_missing_script_is_refused(tmp_path: Path) -> None:
    """With the file's name and the system's reason."""
    with pytest.raises(ConfigurationError, match=r"none\.toml: No such file"):
        load_script(tmp_path / "none.toml")
