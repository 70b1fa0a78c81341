"""What is swept up when the disk tier opens: files a killed process left half-written, folders of models long unused.

Touches only names the disk tier gives; whatever cannot be deleted stays without a word.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

STALE_SECONDS = 30 * 86_400.0
"""A model's folder that was neither opened nor written to for so long goes: it may never be asked for again."""

MAX_LISTED = 50_000
OUR_NAMES = re.compile(r"[0-9a-f]{32}-\d{2,6}\.safetensors(\.\d+\.part)?")


def remove_half_written(path: Path) -> None:
    """Delete a temporary file that nobody writes any more: who writes one holds a lock on it."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def remove_stale_folders(root: Path, *, but: Path) -> None:
    """Delete our files in every folder below `root` that went out of use, and the folder if nothing else is in it."""
    oldest = time.time() - STALE_SECONDS
    with contextlib.suppress(OSError):
        for folder in _listed(root):
            if folder != but and folder.is_dir() and not folder.is_symlink() and folder.stat().st_mtime < oldest:
                _empty(folder)


def _empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in _listed(folder):
            if OUR_NAMES.fullmatch(path.name):
                path.unlink()
        folder.rmdir()


def _listed(folder: Path) -> Iterator[Path]:
    return itertools.islice(folder.iterdir(), MAX_LISTED)
