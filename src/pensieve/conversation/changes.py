"""The statements that change the database, each on its own; `store` puts them into transactions."""

from __future__ import annotations

import heapq
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from pensieve.conversation import rows
from pensieve.conversation.conversation import Conversation, Turn
from pensieve.conversation.search import indexed
from pensieve.errors import ConversationNotFound

_INSERT_TURN: Final = (
    f"INSERT INTO turns ({rows.TURN_COLUMNS}, conversation, words)"  # noqa: S608 - our own names
    " VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
)
_UPDATE_TURN: Final = """
UPDATE turns SET messages = ?, prompt_tokens = ?, cached_tokens = ?, completion_tokens = ?, timings = ?, reason = ?,
is_interrupted = ? WHERE id = ?
"""
_SUBTREE: Final = """
WITH RECURSIVE below (id, words) AS (
    SELECT id, words FROM turns WHERE id = ?
    UNION SELECT turns.id, turns.words FROM turns JOIN below ON turns.parent = below.id
) SELECT id, words FROM below
"""
_SEQUENCE_BITS: Final = 24
ERASED_PAGES: Final = 250
"""A transaction that erases takes so many pages, so that no other program waits for long."""


def change(connection: sqlite3.Connection, conversation_id: int, moment: datetime, **columns: object) -> None:
    """Set these columns of the conversation; raises `ConversationNotFound`."""
    names = ", ".join(f"{name} = ?" for name in (*columns, "updated"))
    values = (*columns.values(), rows.microseconds(moment), conversation_id)
    update = f"UPDATE conversations SET {names} WHERE id = ?"  # noqa: S608 - our own names
    if not connection.execute(update, values).rowcount:
        raise ConversationNotFound(f"conversation {conversation_id}")
    if "title" in columns:
        index_title(connection, conversation_id, str(columns["title"]))


def insert_conversation(connection: sqlite3.Connection, added: Conversation, uid: str) -> int:
    """A row for the conversation, without its turns; its number."""
    insert = (
        "INSERT INTO conversations (uid, title, system, model, created, updated, choices) VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    texts = (uid, *map(rows.plain, (added.title, added.system, added.model)))
    moments = (rows.microseconds(added.created), rows.microseconds(added.updated))
    cursor = connection.execute(insert, (*texts, *moments, rows.encoded(added.choices)))
    assert cursor.lastrowid is not None
    index_title(connection, cursor.lastrowid, added.title)
    return cursor.lastrowid


def insert_turns(connection: sqlite3.Connection, conversation_id: int, turns: Sequence[Turn]) -> dict[int, int]:
    """Rows for all these turns; their new numbers by their old ones."""
    numbers: dict[int, int] = {}
    for turn in parents_first(turns):
        parent = None if turn.parent is None else numbers.get(turn.parent)
        numbers[turn.id] = insert_turn(connection, conversation_id, turn, parent)
    return numbers


def insert_turn(connection: sqlite3.Connection, conversation_id: int, turn: Turn, parent: int | None) -> int:
    """A row for the turn, and its words into the index; its number."""
    said, *rest = _values(turn)
    created = rows.microseconds(turn.created)
    values = (parent, said, created, rows.plain(turn.model), *rest, turn.is_summary, conversation_id)
    turn_id = connection.execute(_INSERT_TURN, values).lastrowid
    assert turn_id is not None
    key = words_key(turn.created, turn_id)
    connection.execute("UPDATE turns SET words = ? WHERE id = ?", (key, turn_id))
    _index_words(connection, key, turn)
    return turn_id


def replace_turn(connection: sqlite3.Connection, turn: Turn) -> None:
    """Write what became of the turn, in the place of its pieces."""
    connection.execute(_UPDATE_TURN, (*_values(turn), turn.id))
    delete_pieces(connection, turn.id)
    key = words_key(turn.created, turn.id)
    connection.execute("DELETE FROM words WHERE rowid = ?", (key,))
    _index_words(connection, key, turn)


def delete_turns(connection: sqlite3.Connection, gone: Sequence[tuple[int, int]]) -> None:
    """Delete turns by number and key of their words."""
    ids = [(turn_id,) for turn_id, _ in gone]
    connection.executemany("DELETE FROM pieces WHERE turn = ?", ids)
    connection.executemany("DELETE FROM words WHERE rowid = ?", [(key,) for _, key in gone])
    connection.executemany("DELETE FROM turns WHERE id = ?", ids)


def delete_conversation(connection: sqlite3.Connection, conversation_id: int) -> None:
    """Delete all of it; raises `ConversationNotFound`."""
    select = "SELECT id, words FROM turns WHERE conversation = ?"
    delete_turns(connection, connection.execute(select, (conversation_id,)).fetchall())
    connection.execute("DELETE FROM titles WHERE rowid = ?", (conversation_id,))
    if not connection.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,)).rowcount:
        raise ConversationNotFound(f"conversation {conversation_id}")


def delete_pieces(connection: sqlite3.Connection, turn_id: int) -> None:
    """Delete what was written of an answer that did not end."""
    connection.execute("DELETE FROM pieces WHERE turn = ?", (turn_id,))


def insert_piece(connection: sqlite3.Connection, turn_id: int, moment: datetime, events: bytes) -> None:
    """A row for the next events of an answer; raises `ConversationNotFound`."""
    insert = "INSERT INTO pieces (turn, written, events) SELECT id, ?, ? FROM turns WHERE id = ?"
    if not connection.execute(insert, (rows.microseconds(moment), events, turn_id)).rowcount:
        raise ConversationNotFound(f"turn {turn_id}")


def check_turn(connection: sqlite3.Connection, conversation_id: int, turn_id: int | None) -> None:
    """Raises `ConversationNotFound` unless the turn is one of the conversation's; None is."""
    if turn_id is not None and conversation_of(connection, turn_id)[0] != conversation_id:
        raise ConversationNotFound(f"turn {turn_id} of conversation {conversation_id}")


def erase_words(connection: sqlite3.Connection, table: str, *, is_first: bool) -> bool:
    """Write a few pages of the index anew, and say whether more are left.

    What was deleted from it is found no more, but it stays in its pages until they are written anew.
    """
    before = connection.total_changes
    num_pages = -ERASED_PAGES if is_first else ERASED_PAGES  # negative: begin with everything that is there
    merge = f"INSERT INTO {table} ({table}, rank) VALUES ('merge', ?)"  # noqa: S608 - our own names
    connection.execute(merge, (num_pages,))
    return connection.total_changes - before >= 2


def subtree(connection: sqlite3.Connection, turn_id: int) -> list[tuple[int, int]]:
    """The turn and all that follow it, by number and key of their words."""
    return list(connection.execute(_SUBTREE, (turn_id,)))


def conversation_of(connection: sqlite3.Connection, turn_id: int) -> tuple[int, int | None]:
    """The number and the head of the turn's conversation; raises `ConversationNotFound`."""
    select = "SELECT id, head FROM conversations WHERE id = (SELECT conversation FROM turns WHERE id = ?)"
    row: tuple[int, int | None] | None = connection.execute(select, (turn_id,)).fetchone()
    if row is None:
        raise ConversationNotFound(f"turn {turn_id}")
    return row


def index_title(connection: sqlite3.Connection, conversation_id: int, title: str) -> None:
    """Put the title where it is found, in the place of the one before."""
    connection.execute("DELETE FROM titles WHERE rowid = ?", (conversation_id,))
    values = (conversation_id, indexed(rows.plain(title)))
    connection.execute("INSERT INTO titles (rowid, text) VALUES (?, ?)", values)


def _index_words(connection: sqlite3.Connection, key: int, turn: Turn) -> None:
    connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (key, indexed(rows.plain(turn.text))))


def words_key(created: datetime, turn_id: int) -> int:
    """The row of a turn's words: seconds first, so that the index itself is in the order of time."""
    seconds = max(0, rows.microseconds(created) // 1_000_000)
    return seconds << _SEQUENCE_BITS | turn_id % (1 << _SEQUENCE_BITS)


def parents_first(turns: Sequence[Turn]) -> Iterator[Turn]:
    """The turns in their order, except that parents come before children; a circle is cut at its first turn."""
    places = {turn.id: place for place, turn in enumerate(turns)}
    waiting: dict[int, list[int]] = defaultdict(list)
    for place, turn in enumerate(turns):
        if turn.parent in places:
            waiting[turn.parent].append(place)
    ready = [place for place, turn in enumerate(turns) if turn.parent not in places]
    given: set[int] = set()
    for first in range(-1, len(turns)):
        if first >= 0 and first not in given:
            ready.append(first)
        while ready:
            place = heapq.heappop(ready)
            if place in given:
                continue
            given.add(place)
            yield turns[place]
            for child in waiting[turns[place].id]:
                heapq.heappush(ready, child)


def _values(turn: Turn) -> tuple[Any, ...]:
    """What of a turn may change later."""
    timings = msgspec.json.encode(turn.timings) if turn.timings else None
    usage = turn.usage
    return (
        rows.encoded(turn.messages),
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        timings,
        turn.reason,
        turn.is_interrupted,
    )
