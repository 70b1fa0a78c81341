"""The SQLite file: opened for its owner only, brought up to date, and SQLite's errors turned into ours.

Knows no conversation.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pensieve.conversation.migrations import APPLICATION_ID, MIGRATIONS
from pensieve.errors import DiskFull, HistoryUnusable, InvalidRequest

BUSY_SECONDS = 10.0
"""How long to wait for another program that writes."""
MEMORY = Path(":memory:")
"""In the place of a file: nothing outlives the program."""


class Database:
    """One connection, safe to use from several threads, one at a time."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str] = MIGRATIONS,
        *,
        is_durable: bool = True,
        purpose: str = "conversations",
    ) -> None:
        """`purpose`: what the file holds, for messages."""
        self.path = path
        self._purpose = purpose
        self._is_durable = is_durable
        self._migrations = migrations
        self._lock = threading.RLock()
        with self._errors():
            if path != MEMORY:
                _make_file(path)
            self._connection = sqlite3.connect(path, BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        with ExitStack() as undone, self._errors():
            undone.callback(self._connection.close)
            self._prepare()
            undone.pop_all()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """All that is read inside is of one moment."""
        with self._lock, self._errors(), self._transaction("BEGIN"):
            yield self._connection

    @contextmanager
    def writing(self, *, is_durable: bool = True) -> Iterator[sqlite3.Connection]:
        """What is written inside is written wholly or not at all.

        Survives the end of the program in any case, a power cut only if durable: that waits for the disk.
        """
        with self._lock, self._errors():
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable and self._is_durable else 'NORMAL'}")
            with self._transaction("BEGIN IMMEDIATE"):
                yield self._connection

    def clear_log(self) -> None:
        """Leave nothing of what was changed in the log beside the file, if nobody else reads it just now."""
        with self._lock, self._errors():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # SQLite has rolled back by itself after some errors
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unusable(f"cannot be used ({error.strerror})", "make it readable and writable") from error
        except OverflowError as error:
            raise InvalidRequest(f"a number is larger than the file of {self._purpose} can hold") from error
        except sqlite3.Error as error:
            raise self._converted(error) from error

    def _converted(self, error: sqlite3.Error) -> HistoryUnusable | DiskFull:
        words = str(error)
        match error.sqlite_errorname if hasattr(error, "sqlite_errorname") else "":
            case "SQLITE_FULL":
                return DiskFull(f"there is no room on the disk for {self.path}: free some, and say it again")
            case name if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                return self._unusable("is being written by another program", "try again when that is done")
            case name if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                advice = "it was left as it is; move it away to begin a new one, or put back a copy of yours"
                return self._unusable(f"is damaged ({words})", advice)
        return self._unusable(f"cannot be used ({words})", "look at the file, its folder and the disk")

    def _unusable(self, problem: str, advice: str) -> HistoryUnusable:
        return HistoryUnusable(f"the file of {self._purpose} {self.path} {problem}: {advice}")

    def _prepare(self) -> None:
        connection = self._connection
        version = self._checked_version()
        for pragma in ("foreign_keys = ON", "secure_delete = ON", "temp_store = MEMORY", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        self._use_log()
        if version < len(self._migrations):
            with self.writing():
                self._migrate()

    def _checked_version(self) -> int:
        version = self._pragma("user_version")
        is_empty = not self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not is_empty and self._pragma("application_id") != APPLICATION_ID:
            raise self._unusable("is another program's", "move it away, or set PENSIEVE_HOME to another folder")
        if version > len(self._migrations):
            raise self._unusable("was written by a newer Pensieve", "install that version; nothing was changed")
        return version

    def _use_log(self) -> None:
        """Write-ahead logging, so that readers and a writer do not wait for each other."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:  # SQLite does not wait by itself where two programs make the file at once
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _migrate(self) -> None:
        version = self._checked_version()  # again, now that nobody else can be at it
        for step in self._migrations[version:]:
            for statement in _statements(step):
                self._connection.execute(statement)
        self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._connection.execute(f"PRAGMA user_version = {len(self._migrations)}")

    def _pragma(self, name: str) -> int:
        found: Any = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return int(found)


def _make_file(path: Path) -> None:
    """For its owner only; SQLite gives its other files the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    found = path.stat()
    if found.st_uid == os.getuid() and found.st_mode & 0o077:
        path.chmod(0o600)


def _statements(step: str) -> Iterator[str]:
    # Not executescript: it commits first, and then a step that fails would be half done.
    statement = ""
    for line in step.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
