"""Finding what was said, with whatever people type."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pensieve.conversation.conversation import Conversation, Turn
from pensieve.conversation.search import query_of, snippet_of
from pensieve.conversation.store import ConversationStore
from pensieve.messages import say

SAID = (
    "The café by the harbour closes at noon.",
    "Use the pathlib module, e.g. Path('x').read_text(), in Python 3.11.",
    "我们明天去北京看长城。",
    'She said "never again" and left.',
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConversationStore]:
    """A store in which `SAID` was said."""
    with ConversationStore(tmp_path_factory.mktemp("search") / "c.db", is_durable=False) as opened:
        talk = opened.create("Errands")
        for words in SAID:
            opened.append(talk.id, [say("user", "Tell me."), say("assistant", words)])
        yield opened


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("harbour", 0),
        ("CAFE noon", 0),
        ("noon harbour", 0),
        ("harb", 0),
        ("read_text()", 1),
        ("path('x')", 1),
        ("3.11", 1),
        ("北京", 2),
        ("长城", 2),
        ('"never again"', 3),
        ("never-again", 3),
        ('"never', 3),
    ],
)
def test_words_are_found_as_people_type_them(store: ConversationStore, typed: str, found: int) -> None:
    """In any order, without their accents, in beginnings, in languages without spaces, in quotes or not."""
    (hit,) = store.search(typed)
    assert store.open(hit.conversation).turns[found].id == hit.turn


@pytest.mark.parametrize("typed", ["", "  ", "???", '"', '""', "*", "harbour never", "京北", '"again never"', "ha"])
def test_what_was_not_said_is_not_found(store: ConversationStore, typed: str) -> None:
    """All words must be there, words in quotes in their order, and beginnings of two letters are too short."""
    assert store.search(typed) == ()


@given(st.text(max_size=60) | st.text(alphabet='abc "*()-^:+{}AND NOT OR NEAR\x00\ud800', max_size=40))
@example("NEAR(a b, 5) OR text : x* AND NOT ^y")
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_typed_is_an_error(store: ConversationStore, typed: str) -> None:
    """Quotes, stars, operators, half characters."""
    assert len(store.search(typed)) <= len(SAID) + 1


def test_a_snippet_tells_what_was_found(store: ConversationStore) -> None:
    """In its surroundings, as it was written; with the conversation and the date."""
    (hit,) = store.search("长城")
    assert (hit.text, hit.title) == ("Tell me. 我们明天去北京看长城。", "Errands")
    assert "".join(piece for piece, is_found in hit.snippet if is_found) == "长城"
    assert abs(hit.created - datetime.now(UTC)) < timedelta(hours=1)


def test_titles_are_found_first(store: ConversationStore) -> None:
    """A hit without a turn; a new title takes the place of the old one."""
    talk = store.create("Mushrooms")
    store.append(talk.id, [say("user", "errands and mushrooms")])
    assert [hit.turn is None for hit in store.search("errands")] == [True, False]
    store.rename(talk.id, "Toadstools")
    assert [hit.turn is None for hit in store.search("mushrooms")] == [False]
    assert [hit.conversation for hit in store.search("toadstools", limit=1)] == [talk.id]
    store.delete(talk.id)
    assert store.search("toadstools") == store.search("mushrooms") == ()


def test_the_newest_come_first_also_among_what_was_imported(tmp_path: Path) -> None:
    """Old words that came late are old."""
    begin = datetime(2030, 1, 1, tzinfo=UTC)

    def talk(*days: int) -> Conversation:
        turns = tuple(
            Turn(id=day, parent=None, messages=(say("user", f"apple {day}"),), created=begin + timedelta(days=day))
            for day in days
        )
        return Conversation(id=0, uid="", created=begin, updated=begin, turns=turns)

    with ConversationStore(tmp_path / "c.db", is_durable=False) as store:
        store.add(talk(5, 300))
        store.add(talk(7, 1, 200))
        assert [hit.text for hit in store.search("apple", limit=4)] == ["apple 300", "apple 200", "apple 7", "apple 5"]


def test_queries_are_phrases() -> None:
    """Nothing typed is an operator."""
    assert query_of('one NOT "two OR" thr') == '"one" "NOT" "two OR" "thr" *'
    assert query_of('a"b') == '"a b"'
    assert snippet_of("x \ue000y\ue001\n z") == (("x ", False), ("y", True), (" z", False))
