"""What was typed in earlier chats, in a file that only its owner can read. Knows no keyboard.

One JSON string a line, so that several chats may add to it at once and a torn line costs nothing else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

KEPT_ENTRIES = 2_000
MAX_ENTRY_BYTES = 64 * 1024
"""A longer text is not kept for the next run."""
MAX_FILE_BYTES = 4 * 2**20
"""A longer file is cut to its newest entries."""


class InputHistory:
    """The file; a file that cannot be used is as good as none."""

    def __init__(self, path: Path, *, is_kept: bool = True) -> None:
        """`is_kept`: whether what is typed now is added to it."""
        self._path = path
        self._is_kept = is_kept
        self._last = ""

    def load(self) -> list[str]:
        """What was typed, oldest first."""
        entries = list(_decoded(self._read()))[-KEPT_ENTRIES:]
        self._last = entries[-1] if entries else ""
        return entries

    def add(self, text: str) -> None:
        """Keep a text; one that was typed twice in a row is kept once."""
        if not self._is_kept:
            return
        line = msgspec.json.encode(text.encode(errors="replace").decode()) + b"\n"
        if not text.strip() or text == self._last or len(line) > MAX_ENTRY_BYTES:
            return
        self._last = text
        with suppress(OSError), os.fdopen(self._open(os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
            file.write(line)

    def _read(self) -> bytes:
        try:
            with os.fdopen(self._open(os.O_RDONLY), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - MAX_FILE_BYTES))
                content = file.read(MAX_FILE_BYTES)
        except OSError:
            return b""
        if size > MAX_FILE_BYTES:
            self._shorten(content)
        return content

    def _shorten(self, content: bytes) -> None:
        lines = content.splitlines(keepends=True)[1:][-KEPT_ENTRIES:]
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(lines)
            draft.replace(self._path)
        except OSError:
            return

    def _open(self, flags: int) -> int:
        """A plain file of our own, closed to everybody else; raises `OSError` otherwise."""
        descriptor = os.open(self._path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            os.close(descriptor)
            raise PermissionError(f"{self._path.name} is not a file of yours")
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        return descriptor


def _decoded(content: bytes) -> Iterable[str]:
    for line in content.splitlines():
        try:
            yield msgspec.json.decode(line, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
