"""The note that tells this user's other commands where the server runs, and with which key. Only its owner reads it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from pensieve.inference.server_client import RunningServer


class RunFile:
    """Written when the server listens, removed when it stops, unless another server has replaced it since."""

    def __init__(self, path: Path, server: RunningServer) -> None:
        self._path = path
        self._server = server

    def write(self) -> None:
        """Put the file in place in one step; raises OSError."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self._server))
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take the file away if it is still ours."""
        with suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(self._path.read_bytes(), type=RunningServer) == self._server:
                self._path.unlink()
