"""Files that a user asked for: whole or not at all, for their owner only, and never over another one by accident."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from pensieve.errors import DiskFull, UsageError
from pensieve.models.sizes import in_words


def save(path: Path, data: bytes, *, is_replacing: bool = False) -> None:
    """Write the file in one step; raises `UsageError` if it is there already or cannot be written, and `DiskFull`."""
    try:
        target = path.resolve()  # a link stays a link
        if target.is_dir():
            raise UsageError(f"{path} is a folder: name a file")
        if target.exists() and not is_replacing:
            raise UsageError(f"{path} is there already: choose another name, or say that it may be replaced")
        if target.exists() and not target.is_file():
            raise UsageError(f"{path} is no plain file, and is left alone: choose another name")
        _put(target, data)
    except OSError as error:
        raise _told(path, error) from error
    except (ValueError, RuntimeError) as error:  # a zero byte; links in a circle
        raise UsageError(f"{path} cannot be the name of a file: choose another one") from error


def is_there(path: Path) -> bool:
    """Whether something has that name already; what cannot be looked at is told when it is written."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _put(target: Path, data: bytes) -> None:
    draft = target.with_name(f".{secrets.token_hex(8)}.pensieve")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path, limit_bytes: int, *, instead: str = "") -> bytes:
    """The file's bytes; raises `UsageError` if it cannot be read or is larger, with what to do `instead`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if len(data) > limit_bytes:
        raise UsageError(f"{path} is larger than {in_words(limit_bytes)}{instead and f': {instead}'}")
    return data


def read_plain(path: Path, limit_bytes: int, *, instead: str) -> bytes:
    """As `read`, of a plain file alone: a pipe could keep whoever reads it waiting."""
    try:
        is_plain = path.is_file()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not is_plain:
        raise UsageError(f"there is no file {path}")
    return read(path, limit_bytes, instead=instead)


def _told(path: Path, error: OSError) -> UsageError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"there is no room on the disk for {path}")
    return UsageError(f"{path} cannot be written: {error.strerror}")
