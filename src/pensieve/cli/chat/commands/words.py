"""How commands read what was typed behind them, and how they say numbers and times. Knows no command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pensieve.cli.chat.commands.table import Candidate
from pensieve.errors import UsageError

_SPANS = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (7 * 86_400, 86_400, "d"))
"""Below so many seconds, so many seconds are one unit."""


def number(typed: str, usage: str, otherwise: int | None = None) -> int:
    """The whole number that was typed; raises `UsageError` with the usage for anything else."""
    if not typed and otherwise is not None:
        return otherwise
    try:
        return int(typed.removeprefix("#"))
    except ValueError as error:
        raise UsageError(f"{typed!r} is not a number: {usage}" if typed else f"say which: {usage}") from error


def needed(typed: str, usage: str) -> str:
    """What was typed; raises `UsageError` with the usage if it is nothing."""
    if not typed:
        raise UsageError(f"something is missing: {usage}")
    return typed


def path_of(typed: str) -> Path:
    """The file that was typed, with or without quotes, `~` for the user's home."""
    bare = typed[1:-1] if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "\"'" else typed
    try:
        return Path(bare).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{bare}: there is no such home folder") from error


def among(names: Iterable[str], typed: str, note: str = "") -> Iterator[Candidate]:
    """Those names that begin as typed."""
    return (Candidate(name, note) for name in names if name.lower().startswith(typed.lower()))


def files(typed: str, suffixes: tuple[str, ...] = ()) -> Iterator[Candidate]:
    """The last words of files and folders that begin as typed; hidden ones only where a dot was typed."""
    folder, beginning = path_of(typed), ""
    if typed and not typed.endswith("/"):
        folder, beginning = folder.parent, folder.name
    last_word = typed.rfind(" ") + 1
    shown = typed[: len(typed) - len(beginning)]
    for name in _entries(folder):
        is_hidden = name.startswith(".") and not beginning
        is_wanted = name.endswith("/") or not suffixes or name.lower().endswith(suffixes)
        if name.startswith(beginning) and is_wanted and not is_hidden:
            yield Candidate(f"{shown}{name}"[last_word:])


def _entries(folder: Path) -> list[str]:
    """The names in a folder, those of folders with a slash; none where it cannot be looked into."""
    try:
        with os.scandir(folder) as found:
            return sorted(f"{each.name}/" if each.is_dir() else each.name for each in found)[:1000]
    except (OSError, ValueError):
        return []


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, in one unit; a date for more than a week."""
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for limit, size, unit in _SPANS:
        if seconds < limit:
            return f"{int(seconds // size)} {unit} ago"
    return moment.astimezone().date().isoformat()


def count_of(number_of: int, what: str) -> str:
    """`1 turn`, `2 turns`, with commas in large numbers."""
    return f"{number_of:,} {what}{'' if number_of == 1 else 's'}"
