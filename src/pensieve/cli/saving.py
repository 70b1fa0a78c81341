"""Files that a user asked for: whole or not at all, for their owner only, and never over another one by accident."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from pensieve.errors import DiskFull, UsageError


def save(path: Path, data: bytes, *, is_replacing: bool = False) -> None:
    """Write the file in one step; raises `UsageError` if it is there already or cannot be written, and `DiskFull`."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    if path.exists() and not is_replacing:
        raise UsageError(f"{path} is there already: choose another name, or say that it may be replaced")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
    except OSError as error:
        raise _told(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path, limit_bytes: int) -> bytes:
    """The file's bytes; raises `UsageError` if it cannot be read or is larger."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise UsageError(f"{path} is larger than {limit_bytes:,} bytes")
    return data


def _told(path: Path, error: OSError) -> UsageError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"there is no room on the disk for {path}")
    return UsageError(f"{path} cannot be written: {error.strerror}")
