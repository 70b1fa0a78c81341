"""Conversations out of files: our own form, ChatGPT's and Claude's exports, and a thousand that are broken."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pensieve.conversation import document
from pensieve.conversation.conversation import Conversation
from pensieve.conversation.importing import read_conversations
from pensieve.conversation.store import ConversationStore
from pensieve.errors import ImportFailed
from pensieve.messages import DocumentPart, TextPart, ThinkingPart, say

from .talks import CHOICES, chatgpt_export, claude_export, rich_talk, talk, turn


def read(found: Any) -> tuple[Conversation, ...]:
    """The conversations of a file with this JSON."""
    return read_conversations(json.dumps(found).encode(), "it.json")


def test_our_own_form_gives_everything_back() -> None:
    """All branches, images, times and counts."""
    talks = (rich_talk(), talk(uid="empty"), talk(uid="chosen", choices=CHOICES))
    assert read_conversations(document.write(talks), "it.json") == talks


def test_the_first_version_is_read_for_ever() -> None:
    """A file that was written once: what it says must not change its meaning."""
    file = Path(__file__).parent / "version_1.json"
    assert read_conversations(file.read_bytes(), file.name) == (rich_talk(),)


def test_answers_that_were_given_anew_are_branches() -> None:
    """ChatGPT's tree of messages as turns; what was not said to the user is the system prompt."""
    (found,) = read(chatgpt_export())
    again, anew, last = found.turns
    assert [each.text.strip() for each in (again, anew)] == [
        "[not in the export: file-service://abc]\n\nWhat is this?\n\nA cat.",
        "[not in the export: file-service://abc]\n\nWhat is this?\n\nA kitten.",
    ]
    assert (again.parent, anew.parent, last.parent) == (None, None, anew.id)
    assert anew.answer is not None
    assert anew.answer.parts == (ThinkingPart("Look."), TextPart("A kitten."))
    assert "print(1, 2)" in last.text
    assert "[browser]\n1 2" in last.text
    assert found.path() == (anew, last)
    assert (found.title, found.uid, found.model) == ("Cats", "chatgpt:conv-1", "cloud-1")
    assert (found.system, last.created.timestamp()) == ("Answer in rhymes.", 1.7e9 + 5)


def test_claudes_messages_become_turns() -> None:
    """With their attachments and thinking; an edited question is a branch."""
    (found,) = read(claude_export())
    first, left, right = found.turns
    assert first.question is not None
    assert first.question.parts == (DocumentPart("text/plain", b"hello", title="notes.txt"), TextPart("When?"))
    assert first.answer is not None
    assert first.answer.parts[0] == ThinkingPart("The sea.")
    assert first.answer.text == '\n\n[search] {"query":"tides"}\n\n\n\n[search]\nHigh at six.\n\nAt six.'
    assert left.text == "[not in the export: tide.png]\n\nAnd tomorrow?\n\nAt seven."
    assert (right.text, right.parent, left.parent) == ("And today?\n\nNow.", first.id, first.id)
    assert (found.uid, found.title, found.path()) == ("claude:talk-1", "Tides", (first, right))


def test_older_exports_of_claude_are_a_line() -> None:
    """Without parents, messages follow each other; without ids too."""
    exported = claude_export()
    for message in exported[0]["chat_messages"]:
        del message["parent_message_uuid"], message["uuid"]
    (found,) = read(exported)
    assert [each.parent for each in found.turns] == [None, 1, 2]
    assert len(found.path()) == 3


def test_the_whole_archive_is_read() -> None:
    """As it was downloaded; an archive without conversations is refused."""
    for name, is_read in (("export/conversations.json", True), ("other.json", False)):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, json.dumps(chatgpt_export()))
        if is_read:
            assert read_conversations(packed.getvalue(), "it.zip") == read(chatgpt_export())
        else:
            with pytest.raises(ImportFailed, match="holds no conversations"):
                read_conversations(packed.getvalue(), "it.zip")
    with pytest.raises(ImportFailed, match="archive"):
        read_conversations(packed.getvalue()[:60], "it.zip")


def chosen(**choices: Any) -> dict[str, Any]:
    """A file's conversations, one of which was asked in this way."""
    moment = "2031-05-04T12:00:00Z"
    return {"conversations": [{"uid": "x", "id": 1, "created": moment, "updated": moment, "choices": choices}]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "newer Pensieve"),
        ({"format": "poems"}, "none of the forms"),
        ({"conversations": 3}, "conversations"),
        ({"conversations": [{"uid": "x"}]}, "`id`"),
        (chosen(sampling={"temperature": 99}), "'x' cannot be: temperature: 99"),
        (chosen(none=["warmth"]), "no parameter 'warmth'"),
        (chosen(thinking={"budget_tokens": 0}), "no number of tokens"),
        (chosen(max_tokens=0), "max_tokens"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], told: str) -> None:
    """In one line, with the file's name."""
    with pytest.raises(ImportFailed, match=told) as caught:
        read(json.loads(document.write([rich_talk()])) | change)
    assert str(caught.value).startswith("it.json cannot be imported: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("turns", [(turn(1, 2), turn(2, 1)), (turn(1, 9),), (turn(1, None), turn(1, None))])
def test_a_tree_that_is_none_is_refused(turns: tuple[Any, ...]) -> None:
    """Circles, parents that are not there, and turns that are there twice."""
    with pytest.raises(ImportFailed, match="before its parent, or twice"):
        read_conversations(document.write([talk(*turns)]), "it.json")


def test_circles_and_loose_ends_of_other_programs_lose_no_word(tmp_path: Path) -> None:
    """What cannot be a tree becomes one."""
    exported = chatgpt_export()
    mapping = exported[0]["mapping"]
    mapping["q1"]["parent"], mapping["sys"]["parent"], mapping["me"]["parent"] = "a3", "me", "sys"
    mapping["q2"]["parent"] = "gone"
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        number = store.take(read(exported))[0].id
        words = "".join(each.text for each in store.open(number).turns)
    assert all(said in words for said in ("A cat.", "A kitten.", "print(1, 2)", "Done."))


def test_a_tree_that_would_fill_the_memory_is_refused() -> None:
    """A long chain with a branch at its end for each message: every branch would repeat the chain."""
    message = {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["x"]}}
    mapping = {f"n{n}": {"message": message, "parent": f"n{n - 1}"} for n in range(1000)}
    mapping |= {f"b{n}": {"message": message, "parent": "n999"} for n in range(1000)}
    with pytest.raises(ImportFailed, match="branches more"):
        read([{"mapping": mapping}])


def places(found: Any) -> list[tuple[Any, Any]]:
    """Every container in the JSON with each of its keys."""
    items = list(found.items()) if isinstance(found, dict) else list(enumerate(found))
    here = [(found, key) for key, _ in items]
    return here + [place for _, value in items if isinstance(value, dict | list) for place in places(value)]


def broken(draw: random.Random, whole: bytes) -> bytes:
    """The file with one thing wrong: cut, a byte changed, a value of another kind, something missing."""
    kind = draw.randrange(4)
    if kind == 0:
        return whole[: draw.randrange(len(whole))]
    if kind == 1:
        place = draw.randrange(len(whole))
        return whole[:place] + bytes([draw.randrange(256)]) + whole[place + 1 :]
    found = json.loads(whole)
    container, key = draw.choice(places(found))
    if kind == 2:
        del container[key]
    else:
        container[key] = draw.choice([None, -1, 10**40, 1e300, "\ud800", "x", [], {}, [[[]]], True])
    return json.dumps(found).encode()


def mutants() -> Iterator[bytes]:
    """Broken files of all forms, the same in each run."""
    draw = random.Random(6)
    wholes = [
        document.write([msgspec.structs.replace(rich_talk(), choices=CHOICES)]),
        *(json.dumps(each()).encode() for each in (chatgpt_export, claude_export)),
    ]
    for whole in cycle(wholes):
        yield broken(draw, whole)


def test_a_thousand_malformed_files_change_nothing(tmp_path: Path) -> None:
    """Each is refused in one clear line; what is harmless enough to be read can be kept and read again."""
    told: list[str] = []
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        kept = store.add(rich_talk())
        before = store.path.read_bytes()
        harmless: list[Conversation] = []
        for data in islice(mutants(), 5000):
            try:
                harmless += read_conversations(data, "it.json")
            except ImportFailed as error:
                told.append(str(error))
            if len(told) == 1000:
                break
        assert len(told) == 1000
        assert all(line.startswith("it.json cannot be imported: ") and "\n" not in line for line in told)
        assert (store.path.read_bytes(), store.open(kept.id)) == (before, kept)
        numbers = [store.add(each).id for each in harmless[::20]]
        assert [len(store.open(number).turns) for number in numbers] == [len(each.turns) for each in harmless[::20]]


def test_a_file_nested_without_end_is_refused() -> None:
    """Before Python's stack ends."""
    for data in (b"[" * 200_000, b'{"format": "pensieve-conversations", "version": ' + b"[" * 200_000):
        with pytest.raises(ImportFailed, match="cannot be imported"):
            read_conversations(data, "it.json")


def test_what_is_here_already_is_not_taken_twice(tmp_path: Path) -> None:
    """By its uid; a copy is made where one is asked for."""
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        assert [each.outcome for each in store.take(read(claude_export()))] == ["new"]
        taken = store.take((*read(claude_export()), *read(chatgpt_export())))
        assert [(each.id, each.outcome) for each in taken] == [(1, "known"), (2, "new")]
        copied = store.add(store.open(1))
        assert copied.uid != store.open(1).uid
        assert [each.messages for each in copied.turns] == [each.messages for each in store.open(1).turns]
        assert store.find(msgspec.structs.replace(copied).uid) == copied.id


def test_what_went_on_here_is_here_already(tmp_path: Path) -> None:
    """Also where it was renamed; the file's last turn is found again among those said since."""
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        first = store.take([rich_talk()])[0]
        store.append(first.id, [say("user", "On.")])
        store.rename(first.id, "Another title")
        again = store.take([rich_talk()])[0]
        assert (again.id, again.outcome, again.head) == (first.id, "known", first.head)
        assert len(store.list()) == 1


def test_another_state_is_taken_beside_the_first_and_once(tmp_path: Path) -> None:
    """A turn more, other words in a turn, or another system prompt: nothing is lost, and nothing doubled."""
    turns = rich_talk().turns
    more = (*turns, turn(4, 3, say("user", "More?"), say("assistant", "Yes.")))
    other = (*turns[:2], turn(3, 1, say("user", "And then?"), say("assistant", "To sea.")))
    states = [talk(*each, system=rich_talk().system) for each in (more, other)]
    states.append(msgspec.structs.replace(rich_talk(), system="Be rude."))
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        store.take([rich_talk()])
        assert [each.outcome for each in store.take(states)] == ["changed"] * 3
        assert [each.outcome for each in store.take(states)] == ["known"] * 3
        assert len({store.open(each.id).uid for each in store.list()}) == 4


def test_a_state_is_the_same_whatever_numbers_its_turns_have(tmp_path: Path) -> None:
    """Each store gives its own."""
    first, second = (turn(*numbers, say("user", "a"), say("assistant", "b")) for numbers in ((1, None), (2, 1)))
    third, fourth = (turn(*numbers, say("user", "a"), say("assistant", "b")) for numbers in ((11, None), (12, 11)))
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        store.take([rich_talk()])
        assert [each.outcome for each in store.take([talk(first, second), talk(third, fourth)])] == ["changed", "known"]


@pytest.mark.parametrize("number", ["conversation_id", "uuid"])
def test_a_conversation_without_a_number_of_its_own_is_known_by_its_content(tmp_path: Path, number: str) -> None:
    """As some exports are; it is here once, too."""
    found = chatgpt_export() if number == "conversation_id" else claude_export()
    for each in found:
        del each[number]
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        assert [store.take(read(found))[0].outcome for _ in range(3)] == ["new", "known", "known"]


def test_equal_answers_of_one_turn_are_each_counted(tmp_path: Path) -> None:
    """Two branches that say the same are not one."""
    once = talk(turn(1, None, say("user", "a"), say("assistant", "b")))
    twice = talk(*once.turns, turn(2, None, *once.turns[0].messages))
    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        assert [each.outcome for each in store.take((once, twice, once, twice))] == ["new", "changed", "known", "known"]
