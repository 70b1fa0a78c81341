"""Turns and conversations as rows of the database, and back. Knows no connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from pensieve.conversation.choices import Choices
from pensieve.conversation.conversation import Conversation, Summary, Turn
from pensieve.errors import BackendFailure, HistoryUnusable
from pensieve.generation import Collector, GenerationEvent, Timings, Usage
from pensieve.messages import Message

Row = Sequence[Any]

TURN_COLUMNS: Final = (
    "id, parent, messages, created, model, prompt_tokens, cached_tokens, completion_tokens, timings, reason,"
    " is_interrupted, is_summary"
)
CONVERSATION_COLUMNS: Final = "id, uid, title, system, model, head, created, updated, choices"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_messages = msgspec.json.Decoder(tuple[Message, ...])
_events = msgspec.json.Decoder(tuple[GenerationEvent, ...])
_choices = msgspec.json.Decoder(Choices)
_timings = msgspec.json.Decoder(Timings)


def microseconds(moment: datetime) -> int:
    """Since 1970 in UTC, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(num_microseconds: int) -> datetime:
    """The moment so long after the beginning of 1970, in UTC."""
    return _EPOCH + num_microseconds * _MICROSECOND


def encoded(value: object) -> bytes:
    """As JSON; lone surrogates, which are no text, become question marks."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_without_surrogates(msgspec.to_builtins(value)))


def turn_of(row: Row, pieces: Iterable[bytes] = ()) -> Turn:
    """The turn of a row of `TURN_COLUMNS`, with what was written of an answer that did not end."""
    turn_id, parent, said, created, model, prompt, cached, completion, timings, reason, interrupted, summary = row
    try:
        return Turn(
            id=turn_id,
            parent=parent,
            messages=(*_messages.decode(said), *said_so_far(pieces)),
            created=moment(created),
            model=model,
            usage=Usage(prompt, cached, completion),
            timings=_timings.decode(timings) if timings else None,
            reason=reason,
            is_interrupted=bool(interrupted),
            is_summary=bool(summary),
        )
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise _damaged(f"turn {turn_id}") from error


def said_so_far(pieces: Iterable[bytes]) -> tuple[Message, ...]:
    """The answer's message out of its pieces; none if it has no words yet. A call that did not end is left out."""
    collector = Collector()
    for piece in pieces:
        for event in _events.decode(piece):
            try:
                collector.add(event)
            except BackendFailure:  # arguments that were no JSON: what was said before and after stays
                continue
    return (collector.message,) if collector.message.parts else ()


def conversation_of(row: Row, turns: Iterable[Turn]) -> Conversation:
    """The conversation of a row of `CONVERSATION_COLUMNS`."""
    conversation_id, uid, title, system, model, head, created, updated, choices = row
    return Conversation(
        id=conversation_id,
        uid=uid,
        title=title,
        system=system,
        model=model,
        head=head,
        created=moment(created),
        updated=moment(updated),
        choices=_choices_of(conversation_id, choices),
        turns=tuple(turns),
    )


def summary_of(row: Row) -> Summary:
    """The line of a row: id, title, model, created, updated, number of turns."""
    conversation_id, title, model, created, updated, num_turns = row
    return Summary(
        id=conversation_id,
        title=title,
        model=model,
        created=moment(created),
        updated=moment(updated),
        num_turns=num_turns,
    )


def plain(text: str) -> str:
    """The text as SQLite can hold it: without lone surrogates."""
    return text.encode(errors="replace").decode()


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return plain(value)
        case dict():
            return {plain(key) if isinstance(key, str) else key: _without_surrogates(v) for key, v in value.items()}
        case list() | tuple():
            return [_without_surrogates(each) for each in value]
    return value


def _choices_of(conversation_id: int, kept: bytes | None) -> Choices:
    try:
        return _choices.decode(kept) if kept else Choices()
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise _damaged(f"what was chosen for conversation {conversation_id}") from error


def _damaged(what: str) -> HistoryUnusable:
    return HistoryUnusable(
        f"{what} in the file of conversations cannot be read: it is damaged, or a newer Pensieve wrote it;"
        " nothing was changed"
    )
