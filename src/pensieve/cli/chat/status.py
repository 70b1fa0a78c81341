"""The line below the prompt: which model answers where, what is full, how quick it was. Values and how they are said.

Knows no terminal and no backend.
"""

from __future__ import annotations

import msgspec

from pensieve.cli.chat.drawing.spans import Row, Span, row_cells
from pensieve.cli.text import one_line
from pensieve.devices.levels import Level
from pensieve.generation import Usage
from pensieve.models.sizes import gigabytes


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now; None where nothing is."""

    model: str = ""
    is_private: bool = False
    """Whether nothing of the chat is kept."""
    place: str = ""
    """`own worker`, or the address of the server that answers."""
    phase: str = ""
    """What is going on beside answers, such as loading; empty: nothing."""
    problem: str = ""
    """What is wrong, in a few words."""
    context_tokens: int | None = None
    """Of the conversation so far."""
    context_limit_tokens: int | None = None
    available_bytes: int | None = None
    level: Level = "Unknown"
    usage: Usage | None = None
    """Of the last answer."""
    tokens_per_second: float | None = None
    first_token_seconds: float | None = None


def status_row(status: Status, columns: int) -> Row:
    """The status in at most so many columns: what matters less leaves first."""
    pieces = _pieces(status)
    least = max((weight for weight, _ in pieces), default=0)
    for limit in range(least, 0, -1):
        row = _joined([span for weight, span in pieces if weight <= limit])
        if row_cells(row) <= columns:
            return row
    return (Span(one_line(status.model)[: max(1, columns)], "dim"),)


def _pieces(status: Status) -> list[tuple[int, Span]]:
    """Each piece with its weight: 1 stays longest."""
    told: list[tuple[int, Span]] = [(1, Span(one_line(status.model), "model"))]
    if status.problem:
        told.append((1, Span(one_line(status.problem), "bad")))
    if status.is_private:
        told.append((1, Span("private", "warning")))
    if status.phase:
        told.append((1, Span(one_line(status.phase), "warning")))
    if status.place:
        told.append((6, Span(one_line(status.place), "dim")))
    told += _context(status)
    told += _memory(status)
    if status.usage and status.usage.prompt_tokens:
        share = status.usage.cached_tokens / status.usage.prompt_tokens
        told.append((4, Span(f"cached {share:.0%}", "dim")))
    if status.tokens_per_second is not None:
        told.append((3, Span(f"{status.tokens_per_second:.0f} tokens/s", "dim")))
    if status.first_token_seconds is not None:
        told.append((5, Span(f"first in {_seconds(status.first_token_seconds)}", "dim")))
    return told


def _context(status: Status) -> list[tuple[int, Span]]:
    used, limit = status.context_tokens, status.context_limit_tokens
    if limit is None:
        return []
    share = (used or 0) / max(1, limit)
    style = "bad" if share >= 0.95 else "warning" if share >= 0.8 else "dim"
    return [(2, Span(f"context {short(used or 0)}/{short(limit)}", style))]


def _memory(status: Status) -> list[tuple[int, Span]]:
    if status.available_bytes is None:
        return []
    style = {"Warning": "warning", "Critical": "bad", "Emergency": "bad"}.get(status.level, "dim")
    level = "" if status.level == "Unknown" else f" {status.level.lower()}"
    weight = 3 if style == "dim" else 1
    return [(weight, Span(f"memory {gigabytes(status.available_bytes)}{level}", style))]


def _joined(spans: list[Span]) -> Row:
    row: list[Span] = []
    for span in spans:
        row += [Span(" · ", "dim"), span] if row else [span]
    return tuple(row)


def short(number: int) -> str:
    """A count of tokens in few characters: 950, 1.2k, 128k."""
    if number < 1_000:
        return str(number)
    return f"{number / 1_000:.1f}k" if number < 10_000 else f"{number / 1_000:.0f}k"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
