"""`pensieve history`, on real files: in a pipe, on a terminal, and as JSON."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pensieve.cli.main import main
from pensieve.conversation import document
from pensieve.conversation.conversation import Conversation
from pensieve.conversation.importing import read_conversations
from pensieve.conversation.store import ConversationStore
from pensieve.generation import Finished, Usage
from pensieve.messages import say

from .conftest import Terminal

ESCAPES = "\x1b[31m \x07\u202e"
Said = Callable[..., tuple[str, str]]


@pytest.fixture
def home(pensieve_home: Path) -> Path:
    """A home in which two conversations are kept."""
    with ConversationStore(pensieve_home / "data" / "conversations.db", is_durable=False) as store:
        walk = store.create(system="Be brief.")
        turn = store.begin_turn(walk.id, [say("user", f"Where is the lighthouse? {ESCAPES}")], model="tiny")
        store.finish(turn.id, [say("assistant", "North.")], finished=Finished("stop", Usage(20, 15, 5)))
        store.append(walk.id, [say("user", "How far? &#x202e;&#8238;&amp;")], model="tiny")
        store.create("Empty")
    return pensieve_home


@pytest.fixture
def said(home: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs `pensieve history ...` and gives what it printed and said; the status is checked."""
    assert home.is_dir()

    def run(*words: str, status: int = 0) -> tuple[str, str]:
        assert main(["history", *words]) == status
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    return run


def store_at(home: Path) -> ConversationStore:
    """The store of that home."""
    return ConversationStore(home / "data" / "conversations.db")


def test_the_list_shows_the_newest_first(said: Said) -> None:
    """In columns, without what moves a terminal; what is not shown is counted."""
    head, empty, walk = said("list")[0].splitlines()
    assert head.split() == ["ID", "TITLE", "TURNS", "MODEL", "CHANGED"]
    assert empty.split()[:4] == ["2", "Empty", "0", "-"]
    assert walk.split()[:8] == ["1", "Where", "is", "the", "lighthouse?", "[31m", "2", "tiny"]
    assert said("list", "--limit", "1")[1] == "and 1 more: --all shows them\n"
    assert [row["id"] for row in json.loads(said("list", "--json")[0])] == [2, 1]


@pytest.mark.usefixtures("pensieve_home")
def test_nothing_kept_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """With how to begin."""
    assert main(["history", "list"]) == 0
    assert "pensieve chat" in capsys.readouterr().err
    assert main(["history", "stats"]) == 0
    assert "0 conversations with 0 turns" in capsys.readouterr().out


def test_words_are_found_and_where(said: Said) -> None:
    """With the conversation and its surroundings; exit status 1 where there is nothing, as grep has it."""
    title, turn = said("search", "lighth")[0].splitlines()[1:]
    assert title.endswith("(title)")
    assert turn.split()[0] == "1"
    assert "Where is the lighthouse?" in turn
    assert "\x1b" not in turn
    assert json.loads(said("search", "north", "lighthouse", "--json")[0])[0]["turn"] == 1
    assert "nothing was found" in said("search", 'NEAR("', "xyz", status=1)[1]


def test_a_conversation_is_shown_whole(said: Said) -> None:
    """As text in a pipe, as our JSON where asked for."""
    shown = said("show", "1")[0]
    for words in ("System: Be brief.", "You:\nWhere is", "tiny:\nNorth.", "How far?"):
        assert words in shown
    (found,) = read_conversations(said("show", "1", "--json")[0].encode(), "shown")
    assert len(found.turns) == 2
    assert "conversation 7 is not here" in said("show", "7", status=1)[1]
    assert "9" * 30 in said("show", "9" * 30, status=2)[1]


@pytest.mark.parametrize(
    ("name", "begin"), [("a.md", "# Where"), ("a.html", "<!DOCTYPE"), ("a.txt", "Where"), ("a", "#")]
)
def test_the_files_name_says_the_form(said: Said, home: Path, name: str, begin: str) -> None:
    """Only its owner reads it."""
    said("export", "1", "--out", name)
    assert (home / name).read_text().startswith(begin)
    assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_a_file_is_not_replaced_by_accident(said: Said, home: Path) -> None:
    """Nobody is there to be asked: the flag says it."""
    (home / "a.md").write_text("mine")
    assert "say --force" in said("export", "1", "--out", "a.md", status=2)[1]
    assert (home / "a.md").read_text() == "mine"
    said("export", "1", "--out", "a.md", "--force")
    assert (home / "a.md").read_text() != "mine"
    assert "is a folder" in said("export", "1", "--out", ".", status=2)[1]
    assert "cannot be written" in said("export", "1", "--out", "no/a.md", status=2)[1]


def test_everything_goes_to_another_machine(said: Said, home: Path) -> None:
    """Exported, deleted, imported: it is the same again; a second time nothing is taken, unless asked for."""
    with store_at(home) as store:
        before = [store.open(number) for number in (1, 2)]
    said("export", "--all", "--out", "all.json")
    assert said("rm", "1", "2", "--yes")[0] == "2 conversations deleted\n"
    assert said("import", "all.json")[0] == "all.json: 2 conversations taken\n"
    assert said("import", "all.json")[0] == "all.json: 0 conversations taken, 2 here already\n"
    (home / "new.json").write_text((home / "all.json").read_text().replace("lighthouse", "harbour"))
    told = "new.json: 1 conversation taken (1 beside an older or newer state), 1 here already\n"
    assert said("import", "new.json")[0] == told
    said("rm", "5", "--yes")
    assert said("import", "all.json", "--again")[0] == "all.json: 2 conversations taken\n"
    with store_at(home) as store:
        after = [store.open(number) for number in (3, 4)]
    assert list(map(words_of, before)) == list(map(words_of, after))


def words_of(conversation: Conversation) -> tuple[str, list[str]]:
    """What two copies share."""
    return conversation.title, [turn.text for turn in conversation.turns]


def test_a_broken_file_changes_nothing(said: Said, home: Path) -> None:
    """One line says what is wrong."""
    for name, content, told in (("a.json", b"{", "cannot be imported"), ("b.json", b"[1]", "none of the forms")):
        (home / name).write_bytes(content)
        assert told in said("import", name, status=1)[1]
    assert "cannot be read" in said("import", "nowhere.json", status=2)[1]
    assert len(json.loads(said("list", "--json")[0])) == 2


def test_json_holds_nothing_that_could_steer_a_terminal(said: Said, home: Path) -> None:
    """Such characters are escapes in it, and read back as they were."""
    title = "C1 \x9b31m turned \u202e"
    with ConversationStore(home / "data" / "conversations.db") as store:
        store.rename(2, title)
    for command in (("list", "--json"), ("show", "2", "--json"), ("export", "2", "--format", "json")):
        out, _ = said(*command)
        assert "\x9b" not in out
        assert "\u202e" not in out
    assert json.loads(said("show", "2", "--json")[0])["conversations"][0]["title"] == title


def test_deleting_asks_first(said: Said, home: Path) -> None:
    """In a pipe it must be said; one that is not there leaves all."""
    assert "say --yes" in said("rm", "1", status=2)[1]
    assert "conversation 9 is not here" in said("rm", "1", "9", "--yes", status=1)[1]
    said("rm", "1", "--yes")
    assert b"lighthouse" not in (home / "data" / "conversations.db").read_bytes()


def test_sums_by_model(said: Said) -> None:
    """Tokens, and what of them came from the cache."""
    shown = said("stats")[0]
    assert "2 conversations with 2 turns, 0 of them interrupted" in shown
    assert shown.splitlines()[-1].split() == ["tiny", "2", "20", "75%", "5"]
    assert json.loads(said("stats", "--json")[0])["num_turns"] == 2


def test_misuse_is_told(said: Said) -> None:
    """With what to say instead."""
    assert "--all" in said("export", status=2)[1]
    assert "holds one conversation" in said("export", "1", "2", "--format", "html", status=2)[1]
    exported = said("export", "1", "2", "--format", "json")[0]
    assert len(read_conversations(exported.encode(), "it")) == 2
    assert json.loads(exported)["version"] == document.VERSION


def test_a_damaged_file_is_one_line(said: Said, home: Path) -> None:
    """And is left as it is."""
    path = home / "data" / "conversations.db"
    path.write_bytes(b"not a database at all")
    out, told = said("list", status=1)
    assert (out, told.count("\n")) == ("", 1)
    assert "is damaged" in told
    assert path.read_bytes() == b"not a database at all"


def test_on_a_terminal_there_are_tables_and_questions(home: Path, terminal: Callable[..., Terminal]) -> None:
    """What was looked for stands out; a no deletes nothing."""
    found = terminal("history", "search", "lighthouse")
    assert found.end() == 0
    assert "\x1b[1mlighthouse\x1b[0m" in found.drawn
    shown = terminal("history", "show", "1")
    assert shown.end() == 0
    assert "North." in shown.drawn
    assert "\x1b[31m" not in found.drawn + shown.drawn
    assert "\u202e" not in shown.drawn
    asked = terminal("history", "rm", "2")
    asked.expect("Delete Empty? [y/N]")
    asked.type("n\r")
    assert asked.end() == 1
    with store_at(home) as store:
        assert len(store.list()) == 2


def test_titles_of_any_length_and_kind_are_listed(said: Said, home: Path) -> None:
    """On one line each."""
    with store_at(home) as store:
        store.rename(1, "long " * 40 + "\n\x1b[2J")
    line = said("list")[0].splitlines()[1]
    assert "..." in line
    assert "\x1b" not in line
