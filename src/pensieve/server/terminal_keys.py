"""Keys that one terminal holds: made by a launcher, noted in an owner-only folder, worth nothing once it has left.

Only digests are kept, each in a file of its own beside the process that holds the key. Knows no request.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from pensieve.devices.lifetimes import Lifetime

TERMINAL_PREFIX = b"pensieve-terminal-"
"""What every such key begins with, so that a server without a key of its own knows which ones to check."""
MAX_NOTE_BYTES = 4096
_OWNER_ONLY = 0o700


class KeyNote(msgspec.Struct, frozen=True):
    """What is written down of a key: who holds it, and for what."""

    holder: Lifetime | None
    """None: good until it is revoked, for settings that were changed on request."""
    purpose: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the key opens the door now."""
        return self.holder is None or self.holder.goes_on


def digest(key: bytes) -> str:
    """The name of a key that gives nothing of it away; the same for the same key, always."""
    return hashlib.sha256(key).hexdigest()


class TerminalKeys:
    """The folder of notes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mint(self, holder: Lifetime | None, purpose: str) -> str:
        """A new key, good for as long as the holder lives, or until it is revoked; raises OSError."""
        key = TERMINAL_PREFIX.decode() + secrets.token_urlsafe(32)
        # Of parents that are made along, Python leaves the mode to the umask.
        self._folder.parent.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        self._folder.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        self._folder.chmod(_OWNER_ONLY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        draft = self._folder / f".{secrets.token_hex(8)}"
        try:
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(msgspec.json.encode(KeyNote(holder, purpose)))
            draft.rename(self._path(key.encode()))
        finally:
            draft.unlink(missing_ok=True)
        return key

    def admits(self, key: bytes) -> bool:
        """Whether a terminal holds this key now."""
        note = self._read(self._path(key))
        return note is not None and note.is_good

    def revoke(self, key: str) -> None:
        """Forget a key before its holder has left."""
        with suppress(OSError):
            self._path(key.encode()).unlink()

    def held(self) -> list[KeyNote]:
        """The notes of the keys that processes hold now; those of holders that are surely gone are removed."""
        notes = []
        with suppress(OSError):
            for path in self._folder.glob("*.json"):
                note = self._read(path)
                if note is None or note.holder is None:
                    continue
                if note.is_good:
                    notes.append(note)
                elif note.holder.is_over:
                    path.unlink(missing_ok=True)
        return notes

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{digest(key)}.json"

    def _read(self, path: Path) -> KeyNote | None:
        """A note that is a plain file of this user's, closed to others, in a folder that is closed as well."""
        try:
            folder = self._folder.lstat()
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                is_private = _is_ours(folder) and _is_ours(found) and stat.S_ISREG(found.st_mode)
                return msgspec.json.decode(file.read(MAX_NOTE_BYTES), type=KeyNote) if is_private else None
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & 0o077
