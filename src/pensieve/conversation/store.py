"""All conversations in one file: each turn is written as it happens, and found again.

Synchronous: an event loop calls it on a thread of its own. Several programs may have the file open. Knows no model and
no terminal. Every method raises `HistoryUnusable` or `DiskFull` where the file fails.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from pensieve.conversation import changes, queries, rows
from pensieve.conversation.choices import Choices
from pensieve.conversation.conversation import Conversation, Summary, Turn, title_of
from pensieve.conversation.database import Database
from pensieve.conversation.sameness import Taken, places, uid_of_state
from pensieve.conversation.search import Hit
from pensieve.conversation.stats import Stats
from pensieve.generation import Finished, GenerationEvent, TextDelta
from pensieve.messages import Message

ABANDONED_AFTER = timedelta(minutes=10)
"""An answer that got no word for so long is not being written any more: its program ended."""


class Place(Enum):
    """Where a turn goes when nobody says it."""

    HEAD = "head"


HEAD: Final = Place.HEAD
"""After the last turn of the path that is spoken now."""


def now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


class ConversationStore:
    """The conversations in a file, which is made if it is missing."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = now, *, is_durable: bool = True) -> None:
        """If durable, whole turns outlive a power cut too, which waits for the disk each time."""
        self._clock = clock
        self._database = Database(path, is_durable=is_durable)
        self._settle_abandoned()

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._database.close()

    # Reading

    def open(self, conversation_id: int) -> Conversation:
        """The whole conversation; raises `ConversationNotFound`."""
        with self._database.reading() as connection:
            return queries.conversation(connection, conversation_id)

    def list(self, limit: int = -1, offset: int = 0) -> tuple[Summary, ...]:
        """The conversations, the one that changed last first; a negative limit: all."""
        with self._database.reading() as connection:
            return queries.summaries(connection, limit, offset)

    def latest(self) -> int | None:
        """The conversation that changed last; None: there is none."""
        found = self.list(limit=1)
        return found[0].id if found else None

    def find(self, uid: str) -> int | None:
        """The number of the conversation with that uid; None: it is not here."""
        with self._database.reading() as connection:
            return queries.find(connection, rows.plain(uid))

    def search(self, text: str, limit: int = 20) -> tuple[Hit, ...]:
        """Where all these words were said, as people type them: titles first, then turns, newest first."""
        with self._database.reading() as connection:
            return queries.hits(connection, text, limit)

    def stats(self) -> Stats:
        """Sums over everything."""
        with self._database.reading() as connection:
            return queries.stats(connection)

    # Conversations

    def create(
        self,
        title: str = "",
        system: str = "",
        model: str = "",
        choices: Choices = Choices(),  # noqa: B008 - frozen
    ) -> Conversation:
        """A new conversation without turns; without a title it takes one from its first question."""
        moment, uid = self._clock(), uuid.uuid4().hex
        begun = Conversation(id=0, uid=uid, created=moment, updated=moment, title=title, system=system, model=model)
        return self.add(msgspec.structs.replace(begun, choices=choices))

    def add(self, conversation: Conversation) -> Conversation:
        """Keep a conversation from elsewhere, with numbers of its own here; as a copy if its uid is here already."""
        with self._database.writing() as connection:
            return queries.conversation(connection, _add(connection, conversation))

    def add_all(self, conversations: Iterable[Conversation]) -> tuple[int, ...]:
        """Keep them all in the way of `add`, or none; their numbers."""
        with self._database.writing() as connection:
            return tuple(_add(connection, conversation) for conversation in conversations)

    def take(self, conversations: Iterable[Conversation]) -> tuple[Taken, ...]:
        """Keep those that are not here yet, all or none; one that is here in another state is kept beside that."""
        with self._database.writing() as connection:
            return tuple(_take(connection, conversation) for conversation in conversations)

    def rename(self, conversation_id: int, title: str) -> None:
        """Give it another title; raises `ConversationNotFound`."""
        with self._database.writing() as connection:
            changes.change(connection, conversation_id, self._clock(), title=rows.plain(title))

    def set_system(self, conversation_id: int, system: str) -> None:
        """Give it another system prompt; raises `ConversationNotFound`."""
        with self._database.writing() as connection:
            changes.change(connection, conversation_id, self._clock(), system=rows.plain(system))

    def set_choices(self, conversation_id: int, choices: Choices) -> None:
        """Keep how it is asked from now on; raises `ConversationNotFound`."""
        with self._database.writing() as connection:
            changes.change(connection, conversation_id, self._clock(), choices=rows.encoded(choices))

    def delete(self, *conversation_ids: int) -> None:
        """Delete them, from the search and from the disk too: all, or none where one raises `ConversationNotFound`."""
        with self._database.writing() as connection:
            for conversation_id in conversation_ids:
                changes.delete_conversation(connection, conversation_id)
        self._erase()

    # Turns

    def begin_turn(
        self,
        conversation_id: int,
        messages: Sequence[Message],
        *,
        parent: int | Place | None = HEAD,
        model: str = "",
        is_summary: bool = False,
    ) -> Turn:
        """Keep a question before it is answered; until `finish` the turn counts as interrupted.

        It becomes the head. A parent that already has a child makes a fork; None begins anew. Raises
        `ConversationNotFound`.
        """
        draft = self._draft(messages, model, is_summary=is_summary)
        return self._keep(conversation_id, msgspec.structs.replace(draft, is_interrupted=True), parent)

    def append(
        self,
        conversation_id: int,
        messages: Sequence[Message],
        *,
        parent: int | Place | None = HEAD,
        model: str = "",
        is_summary: bool = False,
    ) -> Turn:
        """Keep a turn that is already whole, in the way of `begin_turn`; raises `ConversationNotFound`."""
        return self._keep(conversation_id, self._draft(messages, model, is_summary=is_summary), parent)

    def extend(self, turn_id: int, events: Iterable[GenerationEvent], *, is_anew: bool = False) -> None:
        """Keep the next events of the answer: cheap, however long it is already; anew: in the place of those before.

        Raises `ConversationNotFound`.
        """
        lean = tuple(TextDelta(event.text) if isinstance(event, TextDelta) else event for event in events)
        with self._database.writing(is_durable=False) as connection:
            if is_anew:
                changes.delete_pieces(connection, turn_id)
            changes.insert_piece(connection, turn_id, self._clock(), rows.encoded(lean))

    def finish(
        self,
        turn_id: int,
        answer: Sequence[Message] | None = None,
        *,
        finished: Finished | None = None,
        is_interrupted: bool = False,
    ) -> Turn:
        """The answer has ended: keep it whole in the place of its pieces; None: what the pieces say.

        Raises `ConversationNotFound`.
        """
        with self._database.writing() as connection:
            turn = queries.turn(connection, turn_id, with_pieces=answer is None)
            asked = turn.asked if answer else turn.messages  # another program may have settled its pieces
            turn = msgspec.structs.replace(turn, messages=(*asked, *(answer or ())), is_interrupted=is_interrupted)
            if finished is not None:
                turn = msgspec.structs.replace(
                    turn, usage=finished.usage, timings=finished.timings, reason=finished.reason
                )
            changes.replace_turn(connection, turn)
            conversation_id, _ = changes.conversation_of(connection, turn_id)
            changes.change(connection, conversation_id, self._clock())
            return queries.turn(connection, turn_id)

    def move_head(self, conversation_id: int, turn_id: int | None) -> None:
        """Go on after this turn: undo, switching branches and the first half of a fork are all this.

        None goes before the first turn. Nothing is deleted. Raises `ConversationNotFound`.
        """
        with self._database.writing() as connection:
            changes.check_turn(connection, conversation_id, turn_id)
            changes.change(connection, conversation_id, self._clock(), head=turn_id)

    def delete_turn(self, turn_id: int) -> None:
        """Delete the turn and all that follows it, from the search and from the disk too.

        A head that was among them moves before the turn. Raises `ConversationNotFound`.
        """
        with self._database.writing() as connection:
            conversation_id, head = changes.conversation_of(connection, turn_id)
            gone = changes.subtree(connection, turn_id)
            if any(head == each for each, _ in gone):
                head = queries.turn(connection, turn_id).parent
            changes.delete_turns(connection, gone)
            changes.change(connection, conversation_id, self._clock(), head=head)
        self._erase()

    def _erase(self) -> None:
        """Leave nothing on the disk of what was deleted, in many short transactions."""
        for table in ("words", "titles"):
            is_first = is_left = True
            while is_left:
                with self._database.writing(is_durable=False) as connection:
                    is_left = changes.erase_words(connection, table, is_first=is_first)
                is_first = False
        self._database.clear_log()

    def _draft(self, messages: Sequence[Message], model: str, *, is_summary: bool) -> Turn:
        said = tuple(messages)
        return Turn(id=0, parent=None, messages=said, created=self._clock(), model=model, is_summary=is_summary)

    def _keep(self, conversation_id: int, draft: Turn, parent: int | Place | None) -> Turn:
        with self._database.writing() as connection:
            title, head = queries.title_and_head(connection, conversation_id)
            before = head if isinstance(parent, Place) else parent
            changes.check_turn(connection, conversation_id, before)
            turn_id = changes.insert_turn(connection, conversation_id, draft, before)
            changed: dict[str, object] = {"head": turn_id}
            if draft.model:
                changed["model"] = rows.plain(draft.model)
            if not title and (words := title_of(draft.messages)):
                changed["title"] = rows.plain(words)
            changes.change(connection, conversation_id, self._clock(), **changed)
            return queries.turn(connection, turn_id)

    def _settle_abandoned(self) -> None:
        """Make whole turns of the pieces that a program left when it ended, so that they are found."""
        since = rows.microseconds(self._clock() - ABANDONED_AFTER)
        with self._database.reading() as connection:
            if not queries.abandoned(connection, since):
                return
        with self._database.writing() as connection:
            for turn_id in queries.abandoned(connection, since):
                changes.replace_turn(connection, queries.turn(connection, turn_id))


def _take(connection: sqlite3.Connection, conversation: Conversation) -> Taken:
    uid, state_uid = rows.plain(conversation.uid), uid_of_state(conversation)
    is_here = False  # without a uid, as some programs write, only its content says so
    for known_uid in (uid, state_uid):
        if (known := queries.find(connection, known_uid)) is None:
            continue
        is_here = True
        if (found := places(queries.conversation(connection, known), conversation)) is not None:
            head = None if conversation.head is None else found.get(conversation.head)
            return Taken(id=known, outcome="known", head=head)
    added = _add(connection, msgspec.structs.replace(conversation, uid=state_uid if is_here or not uid else uid))
    head = queries.title_and_head(connection, added)[1]
    return Taken(id=added, outcome="changed" if is_here else "new", head=head)


def _add(connection: sqlite3.Connection, conversation: Conversation) -> int:
    uid = rows.plain(conversation.uid)
    if not uid or queries.find(connection, uid) is not None:
        uid = uuid.uuid4().hex
    conversation_id = changes.insert_conversation(connection, conversation, uid)
    numbers = changes.insert_turns(connection, conversation_id, conversation.turns)
    head = None if conversation.head is None else numbers.get(conversation.head)
    changes.change(connection, conversation_id, conversation.updated, head=head)
    return conversation_id
