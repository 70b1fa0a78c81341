"""What is read from the database in one go: a conversation, lists, searches, sums. Changes nothing."""

from __future__ import annotations

import sqlite3
from collections import defaultdict

from pensieve.conversation import rows
from pensieve.conversation.conversation import Conversation, Summary, Turn
from pensieve.conversation.search import END_MARK, START_MARK, Hit, query_of, snippet_of
from pensieve.conversation.stats import ModelStats, Stats
from pensieve.errors import ConversationNotFound

SNIPPET_TOKENS = 16

_SUMMARIES = """
SELECT id, title, model, created, updated, (SELECT count(*) FROM turns WHERE conversation = conversations.id)
FROM conversations ORDER BY updated DESC, id DESC LIMIT ? OFFSET ?
"""
# Words are numbered by the time of their turn, so the newest are found first and the rest is never looked at.
_FOUND_TURNS = """
SELECT conversations.id, turns.id, title, turns.model, turns.created, found.snippet FROM (
    SELECT rowid, snippet(words, 0, ?, ?, '...', ?) AS snippet FROM words WHERE words MATCH ?
    ORDER BY rowid DESC LIMIT ?
) AS found JOIN turns ON turns.words = found.rowid JOIN conversations ON conversations.id = turns.conversation
ORDER BY found.rowid DESC
"""
_FOUND_TITLES = """
SELECT id, NULL, title, model, created, found.snippet FROM (
    SELECT rowid, snippet(titles, 0, ?, ?, '...', ?) AS snippet FROM titles WHERE titles MATCH ?
    ORDER BY rowid DESC LIMIT ?
) AS found JOIN conversations ON conversations.id = found.rowid ORDER BY found.rowid DESC
"""
_MODELS = """
SELECT model, count(*), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens)
FROM turns GROUP BY model ORDER BY count(*) DESC, model
"""


def conversation(connection: sqlite3.Connection, conversation_id: int) -> Conversation:
    """The whole conversation; raises `ConversationNotFound`."""
    select = f"SELECT {rows.CONVERSATION_COLUMNS} FROM conversations WHERE id = ?"  # noqa: S608 - our own names
    row = connection.execute(select, (conversation_id,)).fetchone()
    if row is None:
        raise ConversationNotFound(f"conversation {conversation_id}")
    pieces = _pieces(connection, "conversation", conversation_id)
    select = f"SELECT {rows.TURN_COLUMNS} FROM turns WHERE conversation = ? ORDER BY id"  # noqa: S608 - our own names
    found = connection.execute(select, (conversation_id,))
    return rows.conversation_of(row, [rows.turn_of(each, pieces[each[0]]) for each in found])


def find(connection: sqlite3.Connection, uid: str) -> int | None:
    """The number of the conversation with that uid."""
    row = connection.execute("SELECT id FROM conversations WHERE uid = ?", (uid,)).fetchone()
    return None if row is None else int(row[0])


def title_and_head(connection: sqlite3.Connection, conversation_id: int) -> tuple[str, int | None]:
    """Of the conversation; raises `ConversationNotFound`."""
    select = "SELECT title, head FROM conversations WHERE id = ?"
    row: tuple[str, int | None] | None = connection.execute(select, (conversation_id,)).fetchone()
    if row is None:
        raise ConversationNotFound(f"conversation {conversation_id}")
    return row


def abandoned(connection: sqlite3.Connection, since: int) -> list[int]:
    """Turns whose answer did not end and got its last piece before that moment, in microseconds since 1970."""
    select = "SELECT turn FROM pieces GROUP BY turn HAVING max(written) < ?"
    return [row[0] for row in connection.execute(select, (since,))]


def turn(connection: sqlite3.Connection, turn_id: int, *, with_pieces: bool = True) -> Turn:
    """The turn, with what was written of an answer that did not end; raises `ConversationNotFound`."""
    select = f"SELECT {rows.TURN_COLUMNS} FROM turns WHERE id = ?"  # noqa: S608 - our own names
    row = connection.execute(select, (turn_id,)).fetchone()
    if row is None:
        raise ConversationNotFound(f"turn {turn_id}")
    return rows.turn_of(row, _pieces(connection, "id", turn_id)[turn_id] if with_pieces else ())


def summaries(connection: sqlite3.Connection, limit: int, offset: int) -> tuple[Summary, ...]:
    """Conversations, the one that changed last first; a negative limit is none."""
    return tuple(rows.summary_of(row) for row in connection.execute(_SUMMARIES, (limit, offset)))


def hits(connection: sqlite3.Connection, typed: str, limit: int) -> tuple[Hit, ...]:
    """Where the words are: titles, then turns, newest first."""
    query = query_of(rows.plain(typed))
    if not query:
        return ()
    values = (START_MARK, END_MARK, SNIPPET_TOKENS, query, limit)
    titles = connection.execute(_FOUND_TITLES, values).fetchall()
    found = [*titles, *connection.execute(_FOUND_TURNS, values)][: max(0, limit)]
    return tuple(
        Hit(
            conversation=conversation_id,
            turn=turn_id,
            title=title,
            model=model,
            created=rows.moment(created),
            snippet=snippet_of(marked),
        )
        for conversation_id, turn_id, title, model, created, marked in found
    )


def stats(connection: sqlite3.Connection) -> Stats:
    """Sums over everything."""
    models = tuple(
        ModelStats(
            model=name, num_turns=count, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion
        )
        for name, count, prompt, cached, completion in connection.execute(_MODELS)
    )
    (num_conversations,) = connection.execute("SELECT count(*) FROM conversations").fetchone()
    select = "SELECT count(*), coalesce(sum(is_interrupted), 0), min(created), max(created) FROM turns"
    num_turns, num_interrupted, first, last = connection.execute(select).fetchone()
    (size_bytes,) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).fetchone()
    return Stats(
        num_conversations=num_conversations,
        num_turns=num_turns,
        num_interrupted=num_interrupted,
        size_bytes=size_bytes,
        first=None if first is None else rows.moment(first),
        last=None if last is None else rows.moment(last),
        models=models,
    )


def _pieces(connection: sqlite3.Connection, column: str, value: int) -> dict[int, list[bytes]]:
    """By turn, the answers that did not end."""
    which = f"SELECT id FROM turns WHERE {column} = ?"  # noqa: S608 - our own names
    select = f"SELECT turn, events FROM pieces WHERE turn IN ({which}) ORDER BY pieces.id"  # noqa: S608
    found: dict[int, list[bytes]] = defaultdict(list)
    for turn_id, events in connection.execute(select, (value,)):
        found[turn_id].append(events)
    return found
