"""The private folders that agents keep their things in: made, and written in one step."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pensieve.errors import UsageError


def prepare_folder(agent: str, folder: Path, files_in: Callable[[Path], Mapping[str, bytes]]) -> None:
    """Make the folder, for its owner only, and write what it should hold; raises `UsageError` with a way out."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in files_in(folder).items():
            write_whole(folder / name, content)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UsageError(
            f"{agent}'s folder {folder} cannot be used ({error.strerror}): make it yours again, or"
            " set PENSIEVE_HOME to a folder you can write to"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place in one step, for its owner only."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def show_all_but(own: Path, shown_in: Path, hidden: str) -> None:
    """Fill a private folder with links to all that is in the user's own, but for one name, which stays private."""
    shown_in.mkdir(mode=0o700, parents=True, exist_ok=True)
    for link in shown_in.iterdir():
        if link.is_symlink() and not link.exists():
            link.unlink()
    for each in own.iterdir() if own.is_dir() else ():
        place = shown_in / each.name
        if each.name != hidden and not place.is_symlink() and not place.exists():
            with suppress(FileExistsError):  # another terminal was faster
                place.symlink_to(each)
