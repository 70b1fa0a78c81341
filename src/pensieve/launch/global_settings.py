"""The user's own settings file of Claude Code, changed on request and changed back: for `pensieve setup claude-code`.

What a change makes of a file is a plain function; the note of what was there before lies in Pensieve's data folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from pensieve.errors import UsageError
from pensieve.messages import Json

ENV = "env"
_OWNER_ONLY = 0o600


class Note(msgspec.Struct, frozen=True):
    """What was done to a file, enough to undo it."""

    path: str
    before: bytes | None
    """None: there was no file."""
    after_digest: str
    written: dict[str, str]
    """Our variables."""
    key: str = ""
    """The server's key among them, to be revoked."""


def with_variables(content: bytes | None, variables: Mapping[str, str]) -> bytes:
    """The file with these variables in its `env`, everything else as it was; raises `UsageError` for a broken file."""
    settings = _decoded(content)
    return _encoded(settings | {ENV: {**_env(settings), **variables}})


def without_variables(content: bytes, written: Mapping[str, str], before: bytes | None) -> bytes:
    """The file without those of the variables that are still ours; what stood in their place before comes back."""
    settings, earlier = _decoded(content), _env(_decoded(before))
    env = {
        name: earlier.get(name, value) if written.get(name) == value else value
        for name, value in _env(settings).items()
        if written.get(name) != value or name in earlier
    }
    kept = {name: value for name, value in settings.items() if name != ENV}
    return _encoded(kept | ({ENV: env} if env or ENV in _decoded(before) else {}))


class GlobalSettings:
    """One settings file, and the note of our change to it."""

    def __init__(self, path: Path, note: Path) -> None:
        # Written where a link leads to, so that the link stays one.
        self._path = Path(os.path.realpath(path))
        self._note = note

    @property
    def path(self) -> Path:
        """The file itself."""
        return self._path

    @property
    def noted_key(self) -> str:
        """The server's key that the last change wrote, or ""."""
        note = self._read_note()
        return note.key if note is not None else ""

    def planned(self, variables: Mapping[str, str]) -> tuple[bytes | None, bytes]:
        """The file as it is, and as it would become."""
        before = self._content()
        return before, with_variables(before, variables)

    def change(self, variables: Mapping[str, str], key: str) -> Path | None:
        """Write the variables; the copy of the file as it was, or None where there was none."""
        if self._read_note() is not None:
            self.undo()
        before, after = self.planned(variables)
        note = Note(str(self._path), before, _digest(after), dict(variables), key)
        with self._mine():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if before is not None:
                _write(self._backup, before, _OWNER_ONLY)
            self._note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._note, msgspec.json.encode(note), _OWNER_ONLY)
            try:
                _write(self._path, after, self._mode())
            except OSError:
                self._forget()
                raise
        return None if before is None else self._backup

    def undo(self) -> tuple[Note, bool]:
        """Take the change back; the note, and whether the file is byte for byte what it was."""
        note = self._read_note()
        if note is None:
            raise UsageError("nothing to undo: `pensieve setup claude-code` changed no settings on this machine")
        if note.path != str(self._path):  # CLAUDE_CONFIG_DIR was another one then
            return GlobalSettings(Path(note.path), self._note).undo()
        current = self._content()
        if current == note.before:  # the change was cut off, or taken back by hand
            self._forget()
            return note, True
        is_whole = current is not None and _digest(current) == note.after_digest
        with self._mine():
            match is_whole, note.before:
                case True, None:
                    self._path.unlink()
                case True, bytes(before):
                    _write(self._path, before, self._mode())
                case _ if current is not None:
                    _write(self._path, without_variables(current, note.written, note.before), self._mode())
        self._forget()
        return note, is_whole

    @property
    def _backup(self) -> Path:
        return self._path.with_name(f"{self._path.name}.before-pensieve")

    def _forget(self) -> None:
        with suppress(OSError):
            self._backup.unlink(missing_ok=True)
        self._note.unlink()

    @contextmanager
    def _mine(self) -> Iterator[None]:
        """What the system refuses is told as a user can mend it."""
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self._path} cannot be changed ({error.strerror}), so it is as it was: make it yours to write, or"
                " use `pensieve env`, which changes no file"
            ) from error

    def _content(self) -> bytes | None:
        with self._mine():
            return self._path.read_bytes() if self._path.exists() else None

    def _mode(self) -> int:
        return self._path.stat().st_mode & 0o777 if self._path.exists() else _OWNER_ONLY

    def _read_note(self) -> Note | None:
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Note)
        except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            return None


def _decoded(content: bytes | None) -> dict[str, Json]:
    if content is None or not content.strip():
        return {}
    try:
        settings = json.loads(content)
    except ValueError as error:
        raise UsageError(f"Claude Code's settings are no JSON ({error}): mend the file first") from error
    if not isinstance(settings, dict) or not isinstance(settings.get(ENV, {}), dict):
        raise UsageError("Claude Code's settings are not in the form it reads: mend the file first")
    return settings


def _env(settings: dict[str, Json]) -> dict[str, Json]:
    env: dict[str, Json] = settings.get(ENV, {})
    return env


def _encoded(settings: dict[str, Json]) -> bytes:
    # Half a surrogate pair is JSON, and no UTF-8: it is written as it was, escaped.
    return (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put the file in place in one step."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, _OWNER_ONLY), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(mode)
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
