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
    """How many files there are, and a digest of the names, modes and contents of these and of their folders."""

    num_files: int
    digest: str


def fingerprint(home: Path, places: tuple[str, ...] = CLAUDE_PLACES) -> Fingerprint:
    """The files at these places of a home; a place that is missing is part of the answer."""
    total, num_files = hashlib.sha256(), 0
    for place in places:
        for path in _files(home / place):
            num_files += path.is_symlink() or not path.is_dir()
            total.update(_of_file(path, home))
            if num_files == MAX_FILES:
                return Fingerprint(num_files, total.hexdigest())
    return Fingerprint(num_files, total.hexdigest())


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink() or place.exists():
        yield place
    if place.is_symlink():
        return
    for folder, names, files in os.walk(place):
        names.sort()
        yield from (Path(folder) / name for name in sorted([*names, *files]))


def _of_file(path: Path, home: Path) -> bytes:
    one = hashlib.sha256(os.fsencode(path.relative_to(home)))
    try:
        one.update(oct(path.lstat().st_mode).encode())
        if path.is_symlink():
            one.update(os.fsencode(path.readlink()))
        elif path.is_file():  # a pipe would make us wait for its writer
            one.update(path.read_bytes())
    except OSError as error:
        one.update(f"unreadable: {error.errno}".encode())
    return one.digest()
