"""One answer as rows: its parts in their order, and what is going on meanwhile."""

from __future__ import annotations

import itertools

from pensieve.cli.chat.drawing.answer import AnswerView, activity_row
from pensieve.cli.chat.drawing.theme import plain
from pensieve.generation import (
    GenerationEvent,
    PromptProgress,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)


def view(*events: GenerationEvent, is_folded: bool = True, width: int = 40) -> AnswerView:
    """An answer after these events; each look at the clock is a second later."""
    seconds = itertools.count()
    answer = AnswerView(width, lambda: float(next(seconds)), is_folded=is_folded)
    for event in events:
        answer.add(event)
    return answer


def test_reading_the_prompt_shows_how_far_it_is() -> None:
    """In per cent of its tokens, what came from the cache counted."""
    assert view(Started(40, 10)).activity() == "reading the prompt: 25 % of 40 tokens · 1 s"
    progress = view(Started(40, 0), PromptProgress(39, 40))
    assert progress.activity() == "reading the prompt: 97 % of 40 tokens · 1 s"


def test_what_is_waited_for_is_told() -> None:
    """Until the answer begins."""
    assert view().activity("loading starter, 3 s") == "loading starter, 3 s · 1 s"


def test_folded_thinking_shows_its_end_and_then_one_row() -> None:
    """However long it was."""
    answer = view(*(ThinkingDelta(f"word{number} ") for number in range(100)))
    assert answer.take() == []
    assert len(answer.tail()) == 3
    assert "word99" in plain(answer.tail())
    answer.add(ThinkingFinished())
    answer.add(TextDelta("So."))
    assert plain(answer.take()).startswith("  thought for ")
    assert plain(answer.tail()) == "So."


def test_thinking_that_is_shown_is_drawn_whole() -> None:
    """Line by line, each once."""
    answer = view(ThinkingDelta("one\ntwo"), ThinkingFinished(), is_folded=False)
    assert plain(answer.take()).split("\n")[:2] == ["  one", "  two"]


def test_a_call_is_one_row_where_it_fits() -> None:
    """And its arguments stand below each other where they do not."""
    call = (ToolCallStarted("1", "add"), ToolCallDelta("1", '{"a": 1, "b": "x'), ToolCallDelta("1", '"}'))
    assert plain(view(*call).tail()) == "  → add …"
    answer = view(*call, ToolCallFinished("1"))
    assert plain(answer.take()) == '  → add(a=1, b="x")'
    long = view(*call, ToolCallFinished("1"), width=16)
    assert plain(long.take()) == "  → add\n    a: 1\n    b: x"


def test_arguments_that_are_no_json_are_shown_as_they_are() -> None:
    """Without what a terminal would obey."""
    answer = view(ToolCallStarted("1", "a\x1b[31m"), ToolCallDelta("1", '{"x": \x1b]0;t\x07'), ToolCallFinished("1"))
    assert plain(answer.take()) == '  → a[31m({"x": ]0;t)'


def test_how_to_stop_leaves_first_where_there_is_no_room() -> None:
    """Then the end of the rest."""
    assert plain([activity_row("3 tokens · 1 s", 40)]) == "3 tokens · 1 s · Ctrl-C stops"
    assert plain([activity_row("3 tokens · 1 s", 16)]) == "3 tokens · 1 s"
    assert plain([activity_row("3 tokens · 1 s", 5)]) == "3 tok"
