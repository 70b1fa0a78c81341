"""What the user's own configuration of an agent is, in one digest: to be compared before and after. Changes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

CLAUDE_PLACES = (".claude", ".claude.json", ".config/claude", ".config/claude-code", ".local/state/claude")
MAX_FILES = 50_000


class Fingerprint(msgspec.Struct, frozen=True):
    """How many files there are, and a digest of their names, modes and contents."""

    num_files: int
    digest: str


def fingerprint(home: Path, places: tuple[str, ...] = CLAUDE_PLACES) -> Fingerprint:
    """The files at these places of a home; a place that is missing is part of the answer."""
    total, num_files = hashlib.sha256(), 0
    for place in places:
        for path in _files(home / place):
            num_files += 1
            total.update(_of_file(path, home))
            if num_files == MAX_FILES:
                return Fingerprint(num_files, total.hexdigest())
    return Fingerprint(num_files, total.hexdigest())


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink() or place.is_file():
        yield place
        return
    for folder, names, files in os.walk(place):
        names.sort()
        yield from (Path(folder) / name for name in sorted(files))


def _of_file(path: Path, home: Path) -> bytes:
    one = hashlib.sha256(os.fsencode(path.relative_to(home)))
    try:
        one.update(oct(path.lstat().st_mode).encode())
        one.update(os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes())
    except OSError as error:
        one.update(f"unreadable: {error.errno}".encode())
    return one.digest()
