"""Whatever is done to a store in whatever order, and wherever its program dies: what was written is there again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pensieve.conversation.conversation import Conversation, Turn, title_of
from pensieve.conversation.store import ConversationStore
from pensieve.generation import Finished, TextDelta, ThinkingDelta, Usage
from pensieve.messages import ImagePart, Message, TextPart, ThinkingPart, say

TEXTS = st.text(max_size=20)
PIECES = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5)


class StoreMachine(RuleBasedStateMachine):
    """The store beside what should be in it, as values."""

    conversations = Bundle("conversations")
    turns = Bundle("turns")
    """Pairs of a conversation's number and a turn's; either may be deleted meanwhile."""

    @initialize()
    def make(self) -> None:
        """Begin with no file."""
        self.folder = Path(tempfile.mkdtemp())
        self.num_crashes = 0
        self.num_words = 0
        self.expected: dict[int, Conversation] = {}
        self.store = self.opened()

    def opened(self) -> ConversationStore:
        """The store in the file as it is now."""
        return ConversationStore(self.folder / str(self.num_crashes) / "c.db", is_durable=False)

    def question(self, text: str) -> Message:
        """A question with a word that no other has, and an image."""
        self.num_words += 1
        return Message("user", (ImagePart("image/png", text.encode()), TextPart(f"{text} word{self.num_words}end")))

    def has(self, pair: tuple[int, int]) -> bool:
        """Whether that turn should still be there."""
        return pair[0] in self.expected and self.expected[pair[0]].turn(pair[1]) is not None

    def written(self, conversation_id: int, turn: Turn, messages: Sequence[Message]) -> tuple[int, int]:
        """The turn was accepted: it must say this, and be found again."""
        assert turn.messages == tuple(messages)
        before = self.expected[conversation_id]
        title = before.title or title_of(turn.messages)
        after = msgspec.structs.replace(before.with_turn(turn), title=title)
        self.expected[conversation_id] = after
        return conversation_id, turn.id

    @rule(target=conversations, title=TEXTS, system=TEXTS)
    def create(self, title: str, system: str) -> int:
        """A new conversation."""
        created = self.store.create(title, system)
        self.expected[created.id] = created
        return created.id

    @rule(target=turns, conversation_id=conversations, text=TEXTS, answer=TEXTS)
    def append(self, conversation_id: int, text: str, answer: str) -> tuple[int, int]:
        """A turn after the head."""
        if conversation_id not in self.expected:
            return 0, 0
        said = (self.question(text), say("assistant", answer))
        turn = self.store.append(conversation_id, said)
        assert turn.parent == self.expected[conversation_id].head
        return self.written(conversation_id, turn, said)

    @rule(target=turns, pair=turns, text=TEXTS, pieces=PIECES, is_finished=st.booleans(), is_lost=st.booleans())
    def edit(
        self, pair: tuple[int, int], text: str, pieces: list[str], is_finished: bool, is_lost: bool
    ) -> tuple[int, int]:
        """A second child of the turn's parent, answered word by word, and perhaps never finished."""
        if not self.has(pair):
            return 0, 0
        old = self.expected[pair[0]].turn(pair[1])
        assert old is not None
        question = self.question(text)
        turn = self.store.begin_turn(pair[0], [question], parent=old.parent, model="tiny")
        self.store.extend(turn.id, [ThinkingDelta("hm")])
        for piece in pieces:
            self.store.extend(turn.id, [TextDelta(piece)])
        answer = Message("assistant", (ThinkingPart("hm"), TextPart("".join(pieces))))
        if is_finished:
            turn = self.store.finish(turn.id, [answer], finished=Finished("stop", Usage(3, 2, 1)))
            assert (turn.usage, turn.is_interrupted) == (Usage(3, 2, 1), False)
        else:
            turn = msgspec.structs.replace(turn, messages=(question, answer))
            assert turn.is_interrupted
        self.expected[pair[0]] = msgspec.structs.replace(self.expected[pair[0]], model="tiny")
        found = self.written(pair[0], turn, (question, answer))
        if is_lost:
            self.crash()
        return found

    @rule(pair=turns)
    def fork(self, pair: tuple[int, int]) -> None:
        """Go on from any turn."""
        if self.has(pair):
            self.store.move_head(*pair)
            self.expected[pair[0]] = msgspec.structs.replace(self.expected[pair[0]], head=pair[1])

    @rule(pair=consumes(turns))
    def delete_turn(self, pair: tuple[int, int]) -> None:
        """With all that follows it."""
        if not self.has(pair):
            return
        self.store.delete_turn(pair[1])
        before = self.expected[pair[0]]
        gone = {turn.id for turn in before.turns if pair[1] in {above.id for above in before.path_to(turn.id)}}
        top = before.turn(pair[1])
        assert top is not None
        left = tuple(turn for turn in before.turns if turn.id not in gone)
        head = top.parent if before.head in gone else before.head
        self.expected[pair[0]] = msgspec.structs.replace(before, turns=left, head=head)

    @rule(conversation_id=consumes(conversations))
    def delete(self, conversation_id: int) -> None:
        """Everything of it."""
        if self.expected.pop(conversation_id, None):
            self.store.delete(conversation_id)

    @rule(conversation_id=conversations, title=TEXTS, system=TEXTS)
    def rename(self, conversation_id: int, title: str, system: str) -> None:
        """Another title, another system prompt."""
        if conversation_id in self.expected:
            self.store.rename(conversation_id, title)
            self.store.set_system(conversation_id, system)
            changed = msgspec.structs.replace(self.expected[conversation_id], title=title, system=system)
            self.expected[conversation_id] = changed

    @rule(conversation_id=conversations, temperature=st.floats(0, 5), is_none=st.booleans())
    def choose(self, conversation_id: int, temperature: float, is_none: bool) -> None:
        """Asked in another way."""
        if conversation_id in self.expected:
            chosen = self.expected[conversation_id].choices.with_value("temperature", temperature)
            chosen = chosen.with_none("max_tokens") if is_none else chosen
            self.store.set_choices(conversation_id, chosen)
            self.expected[conversation_id] = msgspec.structs.replace(self.expected[conversation_id], choices=chosen)

    @rule(target=conversations, conversation_id=conversations)
    def copy(self, conversation_id: int) -> int:
        """The same again, with numbers of its own."""
        if conversation_id not in self.expected:
            return 0
        copied = self.store.add(self.store.open(conversation_id))
        assert [turn.messages for turn in copied.path()] == [
            turn.messages for turn in self.expected[conversation_id].path()
        ]
        assert copied.choices == self.expected[conversation_id].choices
        self.expected[copied.id] = copied
        return copied.id

    @rule()
    def crash(self) -> None:
        """The program dies in the middle of a change: what is on the disk now is all there is."""
        old = self.folder / str(self.num_crashes)
        self.num_crashes += 1
        connection = self.store._database._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE turns SET messages = '[]'")
        connection.execute("DELETE FROM pieces")
        shutil.copytree(old, self.folder / str(self.num_crashes))
        connection.execute("ROLLBACK")
        self.store.close()
        self.store = self.opened()
        self.compare()

    @rule()
    def reload(self) -> None:
        """Closed and opened again."""
        self.store.close()
        self.store = self.opened()
        self.compare()

    @precondition(lambda self: self.expected)
    @rule()
    def search(self) -> None:
        """Each question that is still there is found by its own word, and no other."""
        words = {
            turn.id: turn.messages[0].text.rsplit(" ", 1)[1] for talk in self.expected.values() for turn in talk.turns
        }
        assert set(words) == {hit.turn for hit in self.store.search("word", 10_000) if hit.turn is not None}
        for turn_id, word in list(words.items())[-3:]:
            assert turn_id in {hit.turn for hit in self.store.search(f'"{word}"', 10_000)}

    def compare(self) -> None:
        """What is there is what was written; only the time of the last change is the store's own."""
        assert {each.id for each in self.store.list()} == set(self.expected)
        for conversation_id, expected in self.expected.items():
            found = self.store.open(conversation_id)
            assert msgspec.structs.replace(found, updated=expected.updated) == expected

    def teardown(self) -> None:
        """Compare once more, and leave nothing."""
        if hasattr(self, "store"):
            try:
                self.reload()
            finally:
                self.store.close()
                shutil.rmtree(self.folder)


QUICK = settings(
    max_examples=10,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase != Phase.shrink],
)


def test_any_sequence_of_changes_gives_back_what_was_written() -> None:
    """A few in every run."""
    run_state_machine_as_test(StoreMachine, settings=QUICK)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_many_sequences_of_changes_give_back_what_was_written() -> None:
    """And more and longer ones, made short again where one fails."""
    thorough = settings(
        max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(StoreMachine, settings=thorough)
