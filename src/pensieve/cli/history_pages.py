"""How `pensieve history` looks: tables of rich on a terminal, plain columns in a pipe. Knows no store."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from pensieve.cli.text import one_line, printable
from pensieve.conversation.conversation import Conversation, Summary, shortened
from pensieve.conversation.export import markdown, plain_text
from pensieve.conversation.search import Hit
from pensieve.conversation.stats import Stats
from pensieve.models.sizes import in_words

SUMMARY_HEAD: Final = ("ID", "TITLE", "TURNS", "MODEL", "CHANGED")
HIT_HEAD: Final = ("ID", "SAID", "WORDS")
MODEL_HEAD: Final = ("MODEL", "TURNS", "PROMPT TOKENS", "FROM CACHE", "ANSWERED")
_TITLE_CHARACTERS: Final = 40
_ENTITY: Final = re.compile("&#([xX][0-9a-fA-F]{1,8}|[0-9]{1,9});")
_NUMBERS: Final = frozenset({"ID", "TURNS", "PROMPT TOKENS", "FROM CACHE", "ANSWERED"})

Cell = str | Text
Row = tuple[Cell, ...]


def show_table(head: Sequence[str], rows: Sequence[Row]) -> None:
    """Print the rows."""
    if not sys.stdout.isatty():
        for line in _columns(head, rows):
            click.echo(line)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in head:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    Console(highlight=False).print(table)


def show_conversation(conversation: Conversation) -> None:
    """Print the path that is spoken now."""
    if sys.stdout.isatty():
        text = _ENTITY.sub(_shown_entity, markdown(conversation))
        Console(highlight=False).print(Markdown(text, hyperlinks=False))
    else:
        click.echo(printable(plain_text(conversation)), nl=False)


def _shown_entity(found: re.Match[str]) -> str:
    """The entity, unless it stands for a character that may not reach a terminal."""
    digits = found[1]
    number = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    return found[0] if number < 0x110000 and printable(chr(number)) == chr(number) else ""


def summary_row(summary: Summary) -> Row:
    """A conversation in the list."""
    title = one_line(summary.title) or "-"
    short = shortened(title, _TITLE_CHARACTERS)
    return str(summary.id), short, f"{summary.num_turns:,}", one_line(summary.model) or "-", when(summary.updated)


def hit_row(hit: Hit) -> Row:
    """Something that was found, with what was looked for made bold."""
    words = Text()
    for piece, is_found in hit.snippet:
        shown = printable(piece).replace("\n", " ").replace("\t", " ")
        words.append(shown, style="bold" if is_found else "")
    if hit.turn is None:
        words.append(" (title)", style="dim")
    return str(hit.conversation), when(hit.created), words


def stats_lines(stats: Stats, path: str) -> list[str]:
    """The sums in sentences."""
    said = f"{count_of(stats.num_conversations, 'conversation')} with {count_of(stats.num_turns, 'turn')}"
    lines = [
        f"{said}, {stats.num_interrupted:,} of them interrupted",
        f"{in_words(stats.size_bytes)} in {one_line(path)}",
    ]
    if stats.first is not None and stats.last is not None:
        lines.append(f"first said {when(stats.first)}, last {when(stats.last)}")
    return lines


def model_rows(stats: Stats) -> list[Row]:
    """What each model was asked and answered."""
    return [
        (
            one_line(each.model) or "-",
            f"{each.num_turns:,}",
            f"{each.prompt_tokens:,}",
            f"{each.cached_tokens / each.prompt_tokens:.0%}" if each.prompt_tokens else "-",
            f"{each.completion_tokens:,}",
        )
        for each in stats.models
    ]


def count_of(number: int, what: str) -> str:
    """So many of them, in words."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def when(moment: datetime) -> str:
    """The moment on the clock of this machine, to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _columns(head: Sequence[str], rows: Sequence[Row]) -> list[str]:
    cells = [tuple(head), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_aligned(head, row, widths)).rstrip() for row in cells]


def _aligned(head: Sequence[str], row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        f"{cell:>{width}}" if name in _NUMBERS else f"{cell:<{width}}"
        for name, cell, width in zip(head, row, widths, strict=True)
    ]
