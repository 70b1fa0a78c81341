"""The store: what was written is there again, for another program, after a crash, and not after a deletion."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pensieve.conversation.store import ConversationStore
from pensieve.errors import ConversationNotFound, InvalidRequest
from pensieve.generation import Finished, TextDelta, ThinkingDelta, Timings, Usage
from pensieve.messages import DocumentPart, ImagePart, Message, TextPart, ThinkingPart, say

from .talks import talk, turn

MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
QUESTION, ANSWER = say("user", "Where is the lighthouse?"), say("assistant", "On the northern cliff.")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    """An empty store."""
    with ConversationStore(tmp_path / "conversations.db", is_durable=False) as opened:
        yield opened


def another(store: ConversationStore) -> ConversationStore:
    """The same file, as another program has it open."""
    return ConversationStore(store.path)


def test_a_turn_is_there_again_with_everything_that_is_known_of_it(store: ConversationStore) -> None:
    """For another program, at once."""
    begun = store.create(system="Be brief.")
    turn = store.begin_turn(begun.id, [QUESTION], model="tiny")
    finished = Finished("stop", Usage(12, 8, 5), timings=Timings(decode_seconds=0.5))
    kept = store.finish(turn.id, [ANSWER], finished=finished)
    with another(store) as reader:
        found = reader.open(begun.id)
    assert found.turns == (kept,)
    assert (kept.messages, kept.usage, kept.timings) == ((QUESTION, ANSWER), finished.usage, finished.timings)
    assert (kept.reason, kept.is_interrupted) == ("stop", False)
    assert (found.title, found.system, found.model) == ("Where is the lighthouse?", "Be brief.", "tiny")
    assert found.path() == found.spoken() == (kept,)


def test_every_word_of_an_answer_is_kept_before_it_ends(store: ConversationStore) -> None:
    """A program that dies now has lost nothing that it had handed over."""
    begun = store.create()
    turn = store.begin_turn(begun.id, [QUESTION])
    store.extend(turn.id, [ThinkingDelta("Cliffs? "), ThinkingDelta("Yes.")])
    store.extend(turn.id, [TextDelta("On the ")])
    store.extend(turn.id, [TextDelta("northern")])
    with another(store) as reader:
        (found,) = reader.open(begun.id).turns
    assert found.answer == Message("assistant", (ThinkingPart("Cliffs? Yes."), TextPart("On the northern")))
    assert found.is_interrupted


def test_an_answer_that_was_stopped_is_kept_as_far_as_it_came(store: ConversationStore) -> None:
    """Out of its pieces, which are gone then; the mark stays."""
    turn = store.begin_turn(store.create().id, [QUESTION])
    store.extend(turn.id, [TextDelta("On the")])
    kept = store.finish(turn.id, is_interrupted=True)
    assert kept.answer == say("assistant", "On the")
    assert kept.is_interrupted
    assert store.finish(turn.id, [], is_interrupted=True) == kept


def test_an_edited_question_is_a_second_child(store: ConversationStore) -> None:
    """Both branches stay; the path is the one that was written last, until the head moves."""
    begun = store.create()
    first = store.append(begun.id, [QUESTION, ANSWER])
    left = store.append(begun.id, [say("user", "How tall is it?"), say("assistant", "Tall.")])
    right = store.append(begun.id, [say("user", "How old is it?"), say("assistant", "Old.")], parent=first.id)
    found = store.open(begun.id)
    assert found.children(first.id) == found.leaves() == (left, right)
    assert found.path() == (first, right)
    store.move_head(begun.id, left.id)
    assert store.open(begun.id).path() == (first, left)
    assert store.append(begun.id, [QUESTION]).parent == left.id


def test_a_deleted_branch_takes_the_head_back(store: ConversationStore) -> None:
    """To the turn before it; a chain of any length goes."""
    links = (turn(number, number - 1 or None, say("user", f"step {number}")) for number in range(1, 1101))
    begun = store.add(talk(*links))
    first, second, *_ = begun.turns
    store.delete_turn(second.id)
    found = store.open(begun.id)
    assert (found.turns, found.head) == ((first,), first.id)
    assert [hit.turn for hit in store.search("step")] == [first.id]


def test_what_was_deleted_is_nowhere_on_the_disk(store: ConversationStore) -> None:
    """Neither in tables nor in the index nor in the log beside the file."""
    begun, other = store.create(), store.create()
    for number in range(50):
        store.append(begun.id, [say("user", f"my xylophonic secret {number}")])
        store.append(other.id, [say("user", f"nothing special {number}")])
    store.delete(begun.id)
    files = [file for file in store.path.parent.iterdir() if b"xylophon" in file.read_bytes()]
    assert files == []
    assert [each.id for each in store.list()] == [other.id]
    with pytest.raises(ConversationNotFound, match=rf"conversation {begun.id} is not here"):
        store.open(begun.id)


def test_images_and_documents_are_kept(store: ConversationStore) -> None:
    """Byte for byte."""
    data = bytes(range(256)) * 40
    parts = (ImagePart("image/png", data), DocumentPart("application/pdf", data, title="a.pdf"), TextPart("See?"))
    turn = store.append(store.create().id, [Message("user", parts)])
    assert turn.messages == (Message("user", parts),)


def test_the_file_is_its_owners_alone(store: ConversationStore) -> None:
    """And those that SQLite puts beside it."""
    store.append(store.create().id, [QUESTION])
    modes = {stat.S_IMODE(file.stat().st_mode) for file in store.path.parent.iterdir()}
    assert modes == {0o600}
    store.close()
    store.path.chmod(0o644)
    another(store).close()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_the_list_begins_with_what_changed_last(tmp_path: Path) -> None:
    """With the number of turns; `latest` is its first."""
    moments = (datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=second) for second in range(100))
    with ConversationStore(tmp_path / "c.db", lambda: next(moments)) as store:
        first, second = store.create("first"), store.create("second")
        store.append(first.id, [QUESTION])
        assert [(each.title, each.num_turns) for each in store.list()] == [("first", 1), ("second", 0)]
        store.rename(second.id, "renamed")
        assert store.latest() == second.id
        assert [each.title for each in store.list(limit=1)] == ["renamed"]


def test_turns_of_other_conversations_are_no_parents(store: ConversationStore) -> None:
    """What does not belong together is refused, and nothing is written."""
    one, other = store.create(), store.create()
    turn = store.append(one.id, [QUESTION])
    for attempt in (
        lambda: store.append(other.id, [QUESTION], parent=turn.id),
        lambda: store.move_head(other.id, turn.id),
        lambda: store.append(77, [QUESTION]),
        lambda: store.extend(77, [TextDelta("x")]),
        lambda: store.finish(77),
        lambda: store.delete_turn(77),
        lambda: store.rename(77, "x"),
        lambda: store.delete(77),
    ):
        with pytest.raises(ConversationNotFound):
            attempt()
    assert store.open(other.id).turns == ()


def test_pieces_that_nobody_goes_on_with_become_a_turn(tmp_path: Path) -> None:
    """The next program that opens the file makes the words findable; those that are young may still be written."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    path = tmp_path / "c.db"
    with ConversationStore(path, lambda: moment) as store:
        turn = store.begin_turn(store.create().id, [QUESTION])
        store.extend(turn.id, [TextDelta("Halfway up the")])
        kept = store.open(1)
    ConversationStore(path, lambda: moment + timedelta(minutes=1)).close()
    with ConversationStore(path, lambda: moment + timedelta(minutes=1)) as store:
        assert store.search("halfway") == ()
    with ConversationStore(path, lambda: moment + timedelta(hours=1)) as store:
        assert [hit.turn for hit in store.search("halfway")] == [turn.id]
        assert store.open(1) == kept


def test_an_answer_that_another_program_settled_is_kept_once(tmp_path: Path) -> None:
    """As after a machine slept in the middle of it: the whole answer takes the place of its beginning."""
    with ConversationStore(tmp_path / "conversations.db", lambda: MOMENT) as store:
        turn = store.begin_turn(store.create().id, [QUESTION])
        store.extend(turn.id, [TextDelta("On the")])
        ConversationStore(store.path, lambda: MOMENT + timedelta(hours=1)).close()
        kept = store.finish(turn.id, [say("assistant", "On the cliff.")])
    assert kept.messages == (QUESTION, say("assistant", "On the cliff."))


def test_a_number_beyond_all_bounds_is_told(store: ConversationStore) -> None:
    """It comes from what somebody typed."""
    with pytest.raises(InvalidRequest, match="larger"):
        store.open(10**30)
