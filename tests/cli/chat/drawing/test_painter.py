"""Rows on a terminal: what an emulator shows after frames of any kind, and how little is written."""

from __future__ import annotations

import io
import itertools

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.cli.chat.drawing.painter import Painter, Size
from pensieve.cli.chat.drawing.spans import Row, Span
from pensieve.cli.chat.drawing.theme import THEMES

WORDS = st.lists(st.sampled_from(["a", "bb", "a b", "", "ccc c"]), max_size=4)
FRAMES = st.lists(st.tuples(WORDS, WORDS), max_size=12)


def rows(words: list[str], style: str = "") -> list[Row]:
    """Rows of these texts."""
    return [(Span(word, style),) if word else () for word in words]


def shown(text: str, columns: int = 20) -> list[str]:
    """What a terminal shows of it, from the top of its history on."""
    screen = pyte.HistoryScreen(columns, 6, history=1_000)
    pyte.Stream(screen).feed(text)
    gone = ["".join(line[column].data for column in range(columns)).rstrip() for line in screen.history.top]
    return "\n".join([*gone, *(line.rstrip() for line in screen.display)]).rstrip("\n").split("\n")


@settings(max_examples=40, deadline=None)
@given(FRAMES)
def test_settled_rows_stand_above_the_tail(frames: list[tuple[list[str], list[str]]]) -> None:
    """Whatever the frames before were."""
    out = io.StringIO()
    painter = Painter(out, lambda: Size(20, 6))
    for settled, tail in frames:
        painter.paint(THEMES["none"], rows(settled), rows(tail))
    wanted = list(itertools.chain.from_iterable(settled for settled, _ in frames)) + (frames[-1][1] if frames else [])
    assert "\n".join(shown(out.getvalue())) == "\n".join(wanted).rstrip("\n")


def test_text_that_grows_is_written_once() -> None:
    """A row that only becomes longer is not drawn anew."""
    out = io.StringIO()
    painter = Painter(out, lambda: Size(80, 24))
    for length in range(1, 40):
        painter.paint(THEMES["none"], [], rows(["x" * length]))
    assert out.getvalue() == "x" * 39


def test_a_frame_that_changes_nothing_writes_nothing() -> None:
    """Not a byte."""
    out = io.StringIO()
    painter = Painter(out, lambda: Size(80, 24))
    painter.paint(THEMES["terminal"], [], rows(["a", "b"], "bold"))
    before = out.getvalue()
    painter.paint(THEMES["terminal"], [], rows(["a", "b"], "bold"))
    assert out.getvalue() == before


def test_only_the_rows_that_changed_are_drawn() -> None:
    """The rest of the tail is left alone."""
    out = io.StringIO()
    painter = Painter(out, lambda: Size(80, 24))
    painter.paint(THEMES["none"], [], rows(["one", "two"]))
    before = len(out.getvalue())
    painter.paint(THEMES["none"], [], rows(["one", "2"]))
    assert "one" not in out.getvalue()[before:]


def test_a_tail_that_is_taller_than_the_window_shows_its_end() -> None:
    """The rest comes when it is settled."""
    out = io.StringIO()
    painter = Painter(out, lambda: Size(20, 4))
    painter.paint(THEMES["none"], [], rows(["1", "2", "3", "4", "5"]))
    painter.paint(THEMES["none"], rows(["1", "2", "3", "4", "5"]), [])
    assert shown(out.getvalue()) == ["1", "2", "3", "4", "5"]


def test_a_window_that_became_narrower_loses_nothing() -> None:
    """What is settled above the tail is not touched."""
    out, sizes = io.StringIO(), [Size(40, 6), Size(10, 6)]
    painter = Painter(out, lambda: sizes.pop(0) if len(sizes) > 1 else sizes[0])
    painter.paint(THEMES["none"], rows(["kept"]), rows(["a tail of twenty cells"]))
    painter.paint(THEMES["none"], rows(["settled"]), rows(["new"]))
    assert [line for line in shown(out.getvalue(), columns=40) if line in ("kept", "settled", "new")] == [
        "kept",
        "settled",
        "new",
    ]
