"""The queue of batches in one SQLite file: what was asked, what became of it. Every request gets exactly one result.

Synchronous, for one named thread. Times are Unix seconds that the caller gives. Knows no model and no HTTP.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pensieve.conversation.database import Database
from pensieve.errors import InvalidRequest, NotFound
from pensieve.wire.anthropic.batches import ID_PREFIX, Batch, Entry, Listing, Outcome

LIFETIME_SECONDS: Final = 24 * 3600.0
"""A request that got no answer for so long expires."""
KEPT_SECONDS: Final = 29 * 24 * 3600.0
"""Counted from its creation: then a batch and its results are forgotten."""
MAX_STORED_BYTES: Final = 2**30
"""Of all requests and results together: more are not taken in."""
MAX_ATTEMPTS: Final = 3
"""A request that was under way each time when the server or its worker died is not begun once more."""

_FIRST: Final = """
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    cancelled REAL,
    ended REAL,
    num_requests INTEGER NOT NULL
);
CREATE INDEX batches_by_owner ON batches (owner, id);
CREATE TABLE requests (
    batch INTEGER NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    model TEXT NOT NULL,
    params BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    result BLOB,
    PRIMARY KEY (batch, place),
    UNIQUE (batch, custom_id)
);
CREATE INDEX requests_waiting ON requests (place, batch) WHERE outcome IS NULL;
"""
MIGRATIONS: Final[tuple[str, ...]] = (_FIRST,)

_BATCH: Final = "SELECT id, uid, created, expires, cancelled, ended, num_requests FROM batches"


class Place(msgspec.Struct, frozen=True):
    """Where a request lies in the file."""

    batch: int
    at: int


class Waiting(msgspec.Struct, frozen=True):
    """A request that has no result yet, taken from the queue."""

    place: Place
    uid: str
    """Its batch's name."""
    params: bytes
    num_attempts: int
    """How often it was begun, this time included."""


class BatchStore:
    """The file, made if it is missing, for its owner only."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS, purpose="batches")
        self._lock_path = path.with_suffix(".lock")
        self._lock: int | None = None

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._database.close()

    def own(self) -> bool:
        """Whether this process is the one that works the queue off; another that does keeps it until it ends."""
        if self._lock is None:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    # For whoever asks.

    def create(self, owner: str, entries: Sequence[Entry], now_seconds: float) -> Batch:
        """A new batch; it is on the disk when this returns. Raises `InvalidRequest` where too much is kept."""
        uid = f"{ID_PREFIX}{secrets.token_hex(12)}"
        with self._database.writing() as connection:
            _check_room(connection, sum(len(entry.params) for entry in entries))
            row = (uid, owner, now_seconds, now_seconds + LIFETIME_SECONDS, len(entries))
            sql = "INSERT INTO batches (uid, owner, created, expires, num_requests) VALUES (?, ?, ?, ?, ?)"
            number = connection.execute(sql, row).lastrowid
            connection.executemany(
                "INSERT INTO requests (batch, place, custom_id, model, params) VALUES (?, ?, ?, ?, ?)",
                [(number, at, entry.custom_id, entry.model, entry.params) for at, entry in enumerate(entries)],
            )
            return _find(connection, owner, uid)[1]

    def get(self, owner: str, uid: str) -> Batch:
        """The batch of that name; raises `NotFound` for one that is not the owner's too."""
        with self._database.reading() as connection:
            return _find(connection, owner, uid)[1]

    def list(self, owner: str, listing: Listing) -> tuple[tuple[Batch, ...], bool]:
        """A part of the owner's batches, newest first, and whether there are more in that direction."""
        with self._database.reading() as connection:
            cursor = listing.after_id or listing.before_id
            number = _find(connection, owner, cursor)[0] if cursor else 2**62
            is_older = not listing.before_id
            where = f"owner = ? AND id {'<' if is_older else '>'} ? ORDER BY id {'DESC' if is_older else 'ASC'}"
            rows = connection.execute(f"{_BATCH} WHERE {where} LIMIT ?", (owner, number, listing.limit + 1)).fetchall()
            batches = [_batch(connection, row) for row in rows[: listing.limit]]
            return tuple(batches if is_older else reversed(batches)), len(rows) > listing.limit

    def cancel(self, owner: str, uid: str, now_seconds: float) -> Batch:
        """Ask for the batch's end; `settle` brings it. Raises `NotFound`, or `InvalidRequest` if it has ended."""
        with self._database.writing() as connection:
            number, batch = _find(connection, owner, uid)
            if batch.ended_seconds is not None:
                raise InvalidRequest(f"{uid} has ended: there is nothing left to cancel")
            sql = "UPDATE batches SET cancelled = coalesce(cancelled, ?) WHERE id = ?"
            connection.execute(sql, (now_seconds, number))
            return _find(connection, owner, uid)[1]

    def delete(self, owner: str, uid: str) -> None:
        """Forget the batch; raises `NotFound`, or `InvalidRequest` if it has not ended."""
        with self._database.writing() as connection:
            number, batch = _find(connection, owner, uid)
            if batch.ended_seconds is None:
                raise InvalidRequest(f"{uid} has not ended: cancel it first")
            connection.execute("DELETE FROM batches WHERE id = ?", (number,))
        self._database.clear_log()  # or its words would stay there

    def results(self, owner: str, uid: str, after: int, limit: int) -> tuple[tuple[int, str, bytes], ...]:
        """Place, custom id and result of requests after that place, in the order they were sent; raises `NotFound`."""
        with self._database.reading() as connection:
            number, batch = _find(connection, owner, uid)
            if batch.ended_seconds is None:
                raise NotFound(f"results of {uid}: it has not ended")
            sql = (
                "SELECT place, custom_id, coalesce(result, cast(json_object('type', outcome) AS BLOB)) FROM requests"
                " WHERE batch = ? AND place > ? ORDER BY place LIMIT ?"
            )
            return tuple(connection.execute(sql, (number, after, limit)).fetchall())

    # For whoever works the queue off.

    def models(self) -> tuple[str, ...]:
        """The names that waiting requests ask for."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT DISTINCT model FROM requests WHERE outcome IS NULL LIMIT 1000").fetchall()
            return tuple(name for (name,) in rows)

    def num_waiting(self) -> int:
        """Requests without a result, those under way included."""
        with self._database.reading() as connection:
            found: int = connection.execute("SELECT count(*) FROM requests WHERE outcome IS NULL").fetchone()[0]
            return found

    def take(
        self, models: Collection[str], besides: Collection[Place], limit: int, only: Collection[Place] | None = None
    ) -> tuple[Waiting, ...]:
        """The next requests for these models but those under way: batches take turns, each in its own order."""
        # Only those that are taken are read whole: a queue may hold a gigabyte.
        sql = (
            "SELECT batch, place FROM requests WHERE outcome IS NULL"
            " AND model IN (SELECT value FROM json_each(?)) ORDER BY place, batch"
        )
        with self._database.writing(is_durable=False) as connection:
            found = itertools.starmap(Place, connection.execute(sql, (json.dumps(sorted(models)),)))
            wanted = (place for place in found if place not in besides and (only is None or place in only))
            return tuple(_begun(connection, place) for place in tuple(itertools.islice(wanted, limit)))

    def put_back(self, place: Place) -> None:
        """The request was not answered, and that was not its fault."""
        with self._database.writing(is_durable=False) as connection:
            sql = "UPDATE requests SET attempts = max(0, attempts - 1) WHERE batch = ? AND place = ?"
            connection.execute(sql, (place.batch, place.at))

    def finish(self, place: Place, outcome: Outcome, result: bytes) -> bool:
        """Keep the request's result; False if it has one, or was deleted."""
        with self._database.writing() as connection:
            sql = "UPDATE requests SET outcome = ?, result = ? WHERE batch = ? AND place = ? AND outcome IS NULL"
            return connection.execute(sql, (outcome, result, place.batch, place.at)).rowcount == 1

    def over(self, now_seconds: float) -> frozenset[int]:
        """The numbers of batches whose requests must not go on: cancelled, or out of time."""
        with self._database.reading() as connection:
            sql = "SELECT id FROM batches WHERE ended IS NULL AND (cancelled IS NOT NULL OR expires <= ?)"
            return frozenset(number for (number,) in connection.execute(sql, (now_seconds,)))

    def settle(self, now_seconds: float) -> int:
        """Give waiting requests of batches that are over their outcome, end what is whole, forget what is old.

        Gives the number of batches that ended.
        """
        with self._database.writing() as connection:
            ending = (
                "UPDATE requests SET outcome = ? WHERE outcome IS NULL AND batch IN"
                " (SELECT id FROM batches WHERE ended IS NULL AND (CASE ? WHEN 'canceled'"
                " THEN cancelled IS NOT NULL ELSE expires <= ? END))"
            )
            for outcome in ("canceled", "expired"):
                connection.execute(ending, (outcome, outcome, now_seconds))
            ended = connection.execute(
                "UPDATE batches SET ended = ? WHERE ended IS NULL AND NOT EXISTS"
                " (SELECT 1 FROM requests WHERE batch = batches.id AND outcome IS NULL)",
                (now_seconds,),
            ).rowcount
            old = "DELETE FROM batches WHERE ended IS NOT NULL AND created <= ?"
            connection.execute(old, (now_seconds - KEPT_SECONDS,))
            return ended


def _find(connection: sqlite3.Connection, owner: str, uid: str) -> tuple[int, Batch]:
    row = connection.execute(f"{_BATCH} WHERE uid = ? AND owner = ?", (uid, owner)).fetchone()
    if row is None:
        raise NotFound(f"batch {uid[:100]}")
    return row[0], _batch(connection, row)


def _begun(connection: sqlite3.Connection, place: Place) -> Waiting:
    """The request there, begun once more."""
    where = (place.batch, place.at)
    connection.execute("UPDATE requests SET attempts = attempts + 1 WHERE batch = ? AND place = ?", where)
    sql = "SELECT uid, params, attempts FROM requests JOIN batches ON batches.id = batch WHERE batch = ? AND place = ?"
    return Waiting(place, *connection.execute(sql, where).fetchone())


def _batch(
    connection: sqlite3.Connection, row: tuple[int, str, float, float, float | None, float | None, int]
) -> Batch:
    number, uid, created, expires, cancelled, ended, num_requests = row
    sql = "SELECT outcome, count(*) FROM requests WHERE batch = ? AND outcome IS NOT NULL GROUP BY outcome"
    return Batch(
        id=uid,
        created_seconds=created,
        expires_seconds=expires,
        num_requests=num_requests,
        outcomes=dict(connection.execute(sql, (number,)).fetchall()),
        ended_seconds=ended,
        cancelled_seconds=cancelled,
    )


def _check_room(connection: sqlite3.Connection, more_bytes: int) -> None:
    sql = "SELECT coalesce(sum(length(params) + coalesce(length(result), 0)), 0) FROM requests"
    kept: int = connection.execute(sql).fetchone()[0]
    if kept + more_bytes > MAX_STORED_BYTES:
        raise InvalidRequest(
            f"batches keep {kept:,} bytes here, and {MAX_STORED_BYTES:,} is the most: delete some that have ended"
        )
