"""Markdown while it comes: what is drawn, that pieces do not matter, and that each row is drawn once."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pensieve.cli.chat.drawing.markdown import Markdown
from pensieve.cli.chat.drawing.spans import Row, row_cells
from pensieve.cli.chat.drawing.theme import plain

MARKUP = st.text(alphabet="ab *_`~#>-|1.[](!)\\\n\tht:/ps日é\x1b\u202e", max_size=40)
WORDS = st.sampled_from(
    (
        *("# ", "- ", "1. ", "> ", "```", "```python\n", "~~~\n", "\n", "\n\n", "| a | b |\n", "|---|---|\n", "---\n"),
        *(
            "**bold**",
            "*it*",
            "`x*y`",
            "[a](http://b.test)",
            "![i](j)",
            "https://a_b.test/d_e",
            "snake_case ",
            "2 * 3 ",
        ),
        *(
            "*open ",
            "def f():\n",
            "    return '''\n",
            "/* c\n",
            "long" * 30,
            "日本語の文字",
            "e\u0301",
            "\\* ",
            "- [x] ",
        ),
    )
)
LONG = "word " * 45
"""So much of a line that what follows is drawn as it comes."""
SOURCES = st.tuples(st.sampled_from(["", LONG]), st.lists(WORDS | MARKUP, max_size=8).map("".join)).map("".join)


def drawn(*pieces: str, width: int = 40) -> list[Row]:
    """The rows of a text that came in these pieces; between them, the tail is looked at."""
    markdown, rows = Markdown(width), list[Row]()
    for piece in pieces:
        markdown.feed(piece)
        rows += markdown.take()
        markdown.tail()
    markdown.finish()
    return rows + markdown.take()


def text(source: str, width: int = 40) -> str:
    """The rows as text without styles."""
    return plain(drawn(source, width=width))


def styles(source: str) -> dict[str, str]:
    """The style of each piece of text."""
    return {span.text: span.style for row in drawn(source) for span in row}


def test_an_escaped_mark_is_a_letter() -> None:
    """It neither begins nor ends anything, and what stands before it may itself be escaped."""
    assert styles(r"*a\`b*") == {"a`b": "italic"}
    assert styles(r"*a\\*") == {"a\\": "italic"}
    assert styles(r"*a\*b*") == {"a*b": "italic"}


@settings(max_examples=60, deadline=None)
@given(SOURCES, st.sampled_from([20, 40, 79]))
@example(LONG + "**a***", 40)
@example(LONG + "`a``b`", 40)
@example(LONG + "x_https://a_b.test/c_d *e*f", 40)
@example(LONG + "\\`*open `*open ", 20)
@example(LONG + "\\``a`", 20)
def test_pieces_do_not_matter(source: str, width: int) -> None:
    """Letter by letter and whole, the same rows come out."""
    assert drawn(*source, width=width) == drawn(source, width=width)


@settings(max_examples=60, deadline=None)
@given(SOURCES, st.lists(st.integers(0, 200), max_size=5))
def test_any_pieces_give_the_same_rows(source: str, places: list[int]) -> None:
    """Wherever the text is cut."""
    cuts = [0, *sorted(place for place in places if place < len(source)), len(source)]
    pieces = [source[start:end] for start, end in pairwise(cuts)]
    assert drawn(*pieces) == drawn(source)


@settings(max_examples=60, deadline=None)
@given(SOURCES)
def test_no_character_of_control_is_drawn(source: str) -> None:
    """Nor one that turns the direction of the text."""
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain(drawn(source)).replace("\n", ""))


@settings(max_examples=60, deadline=None)
@given(SOURCES, st.integers(8, 60))
def test_the_tail_is_never_wider_than_the_screen(source: str, width: int) -> None:
    """What will be drawn again must be where it is thought to be."""
    markdown = Markdown(width)
    for character in source:
        markdown.feed(character)
        assert all(row_cells(row) <= max(width, 32) for row in markdown.tail())


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abc 1", max_size=200))
def test_no_word_is_lost(source: str) -> None:
    """Nor one invented."""
    assert text(source).split() == source.split() or "".join(text(source).split()) == "".join(source.split())


def test_emphasis_is_told_apart() -> None:
    """Bold, italics, both, struck and code; marks that are only characters stay."""
    found = styles("**b** *i* ***bi*** ~~s~~ `c*d*` 2 * 3 snake_case_name")
    wanted = {"b": "bold", "i": "italic", "bi": "bold italic", "s": "struck", "c*d*": "code"}
    assert {name: found[name] for name in wanted} == wanted
    assert " 2 * 3 snake_case_name" in found


def test_a_link_tells_its_address() -> None:
    """A text may claim to be another one."""
    assert text("see [my bank](http://evil.test/x)") == "see my bank (http://evil.test/x)"


def test_rows_hang_below_their_item() -> None:
    """At the place where its text began."""
    source = "- one that has to wrap\n  10. two is too long as well"
    assert text(source, width=16).split("\n") == [
        "• one that has",
        "  to wrap",
        "  10. two is too",
        "      long as",
        "      well",
    ]


def test_code_is_drawn_line_by_line() -> None:
    """A line is settled when it ends, and a string that spans lines keeps its colour."""
    markdown = Markdown(40)
    markdown.feed("```python\nx = '''a\nb''' + 1\nreturn")
    settled = markdown.take()
    assert plain(settled) == "── python\nx = '''a\nb''' + 1"
    assert plain(markdown.tail()) == "return"
    assert {span.text: span.style for span in settled[2]}["b'''"] == "string"


@pytest.mark.parametrize("language", ["", "brainfog", "markdown", "html+php", "c", "../../etc", "yaml", "console"])
def test_any_language_is_drawn(language: str) -> None:
    """Known or not, with a lexer of its own ways or without one."""
    lines = 'if (a < "b") { /* c\n d */ }\n<?php echo 1; ?>\n'
    assert text(f"```{language}\n{lines}```").split("\n")[1:-1] == lines.strip().split("\n")


def test_a_fence_in_an_item_ends_there() -> None:
    """Its margin is not the code's."""
    assert text("- a:\n  ```\n  x\n    y\n  ```\nb").split("\n") == ["• a:", "  ──", "  x", "    y", "  ──", "b"]


def test_a_table_is_fitted() -> None:
    """Its columns share what room there is."""
    source = "| name | what |\n|---|:--|\n| `a` | several words that wrap |\n| b |\nend"
    lines = ["name  what", "────  ──────────────", "a     several words", "      that wrap", "b", "end"]
    assert text(source, width=20).split("\n") == lines


def test_a_table_of_many_columns_is_never_wider_than_the_screen() -> None:
    """The last column has the cells that there is no room for, held back or settled."""
    row = f"|{'|'.join(f'cell {number}' for number in range(30))}|\n"
    markdown = Markdown(59)
    markdown.feed(row + "|" + "-|" * 30 + "\n" + row)
    assert max(row_cells(each) for each in markdown.tail()) <= 59
    markdown.feed(row * 20)
    markdown.finish()
    drawn = markdown.take()
    assert max(row_cells(each) for each in drawn) <= 59
    assert "29" in plain(drawn)


def test_rows_of_a_long_table_are_drawn_once() -> None:
    """After a dozen the columns stay."""
    markdown = Markdown(40)
    markdown.feed("|n|\n|-|\n" + "|1|\n" * 30)
    assert len(markdown.take()) == 32
    assert markdown.tail() == []


def test_a_long_line_is_settled_while_it_comes() -> None:
    """Nothing waits for the end of the line but its last row."""
    markdown = Markdown(40)
    for _ in range(500):
        markdown.feed("word **two** ")
        assert len(markdown.tail()) <= 6
    assert len(markdown.take()) > 90


def test_half_a_mark_shows_what_it_will_be() -> None:
    """Bold that is not closed yet is bold already."""
    markdown = Markdown(40)
    markdown.feed("some **bold te")
    assert [(span.text, span.style) for span in markdown.tail()[0]] == [("some ", ""), ("bold te", "bold")]


def test_blank_lines_stand_between_and_nowhere_else() -> None:
    """One at most."""
    assert text("\n\na\n\n\n\nb\n\n") == "a\n\nb"
