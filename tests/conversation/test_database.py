"""Files that cannot be used are left as they are, and two programs use one file at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.conversation.choices import Choices
from pensieve.conversation.database import Database
from pensieve.conversation.migrations import MIGRATIONS
from pensieve.conversation.store import ConversationStore
from pensieve.errors import HistoryUnusable
from pensieve.generation import TextDelta
from pensieve.messages import say

from .talks import CHOICES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is, with one conversation in it."""
    file = tmp_path / "conversations.db"
    with ConversationStore(file, is_durable=False) as store:
        talk = store.create()
        for number in range(40):
            store.append(talk.id, [say("user", f"line {number} " + "x" * 400)])
    return file


def refusal(path: Path) -> str:
    """What is said of the file; it must not change."""
    before = path.read_bytes()
    with pytest.raises(HistoryUnusable) as caught:
        read(path)
    assert path.read_bytes() == before
    return str(caught.value)


def read(path: Path) -> None:
    """Open the file and read what is in it."""
    with ConversationStore(path) as store:
        store.open(1)
        store.search("line")


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    """It may hold what this version would lose."""
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    told = refusal(path)
    assert "newer Pensieve" in told
    assert str(path) in told


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """Though it is SQLite's."""
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE turns (x)")
    connection.close()
    assert "another program's" in refusal(path)


@pytest.mark.parametrize("content", [b"hello", b"x" * 100_000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """One sentence says what is wrong and what to do."""
    path = tmp_path / "conversations.db"
    path.write_bytes(content)
    assert "move it away" in refusal(path)


def test_a_damaged_page_is_told_and_left(path: Path) -> None:
    """Where it is met: opening the file looks at its first page only."""
    content = bytearray(path.read_bytes())
    for start in range(3 * 4096, len(content), 4096):
        content[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_a_turn_that_is_not_understood_is_named(path: Path) -> None:
    """A part of a kind that a newer version brought, or rubbish."""
    with sqlite3.connect(path) as connection:
        connection.execute("""UPDATE turns SET messages = '[{"role": "user", "parts": [{"type": "smell"}]}]'""")
    connection.close()
    assert "turn 1 " in refusal(path)


def test_a_folder_that_is_not_there_is_made_and_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    """With the system's reason."""
    ConversationStore(tmp_path / "a" / "b" / "c.db").close()
    (tmp_path / "file").touch()
    with pytest.raises(HistoryUnusable, match="cannot be used"):
        ConversationStore(tmp_path / "file" / "c.db")
    with pytest.raises(HistoryUnusable, match="cannot be used"):
        ConversationStore(tmp_path / "a")


def test_a_file_of_an_older_version_is_brought_up_to_date(path: Path) -> None:
    """Its words stay; a step that fails leaves the file as it was."""
    failing = (*MIGRATIONS, "ALTER TABLE turns ADD COLUMN mood TEXT; SELECT nonsense;")
    with pytest.raises(HistoryUnusable, match="cannot be used"):
        Database(path, failing)
    ConversationStore(path).close()
    Database(path, (*MIGRATIONS, "ALTER TABLE turns ADD COLUMN mood TEXT;\nUPDATE turns SET mood = 'x;y';")).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM turns WHERE mood = 'x;y'").fetchone() == (40,)
    connection.close()
    assert "newer Pensieve" in refusal(path)


def test_a_file_from_before_choices_were_kept_is_brought_up_to_date(tmp_path: Path) -> None:
    """As it was written then; nothing was chosen in it, and now something can be."""
    path = tmp_path / "conversations.db"
    old = Database(path, MIGRATIONS[:2])
    with old.writing() as connection:
        connection.execute("INSERT INTO conversations VALUES (1, 'u', 'Old', 'Be brief.', 'tiny', 1, 5, 6)")
        said_then = """[{"role":"user","parts":[{"type":"text","text":"lighthouse"}]}]"""
        connection.execute(
            "INSERT INTO turns VALUES (1, 1, NULL, ?, 5, 'tiny', 1, 0, 1, NULL, 'stop', 0, 0, 1)", (said_then,)
        )
        connection.execute("INSERT INTO words (rowid, text) VALUES (1, 'lighthouse')")
    old.close()
    with ConversationStore(path) as store:
        found = store.open(1)
        assert (found.title, found.system, found.choices, found.turns[0].text) == (
            "Old",
            "Be brief.",
            Choices(),
            "lighthouse",
        )
        assert [hit.turn for hit in store.search("lighthouse")] == [1]
        store.set_choices(1, CHOICES)
    with ConversationStore(path) as store:
        assert store.open(1).choices == CHOICES


WRITER = """
import sys
from pathlib import Path
from pensieve.conversation.store import ConversationStore
from pensieve.messages import say
sys.stdin.readline()
with ConversationStore(Path(sys.argv[1]), is_durable=False) as store:
    talk = store.create(sys.argv[2])
    for number in range(30):
        store.append(talk.id, [say("user", f"{sys.argv[2]} {number}")])
"""


def test_two_programs_make_and_fill_one_file(tmp_path: Path) -> None:
    """At once, and neither loses a word."""
    path = tmp_path / "conversations.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name], stdin=subprocess.PIPE) for name in ("left", "right")]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with ConversationStore(path) as store:
        assert {(each.title, each.num_turns) for each in store.list()} == {("left", 30), ("right", 30)}
        assert len(store.search("right", limit=100)) == 31


STREAMER = """
import sys
from pathlib import Path
from pensieve.conversation.store import ConversationStore
from pensieve.generation import TextDelta
from pensieve.messages import say
store = ConversationStore(Path(sys.argv[1]))
turn = store.begin_turn(store.create().id, [say("user", "Count.")])
for number in range(10**9):
    store.extend(turn.id, [TextDelta(f"{number} ")])
    print(number, flush=True)
"""


def test_a_program_that_is_killed_in_an_answer_loses_at_most_one_word(tmp_path: Path) -> None:
    """Everything that it had handed over is there for the next one."""
    path = tmp_path / "conversations.db"
    with subprocess.Popen([sys.executable, "-c", STREAMER, str(path)], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        for line in program.stdout:
            if int(line) == 25:
                os.kill(program.pid, signal.SIGKILL)
                break
        last = [25, *map(int, program.stdout.read().split())][-1]
    with ConversationStore(path) as store:
        (turn,) = store.open(1).turns
        assert turn.answer is not None
        assert turn.is_interrupted
        assert [int(word) for word in turn.answer.text.split()][: last + 1] == list(range(last + 1))
        store.extend(turn.id, [TextDelta("on")])


def test_a_writer_that_waits_too_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds the file."""
    monkeypatch.setattr("pensieve.conversation.database.BUSY_SECONDS", 0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    with ConversationStore(path) as store:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryUnusable, match="another program"):
            store.create()
        holder.execute("ROLLBACK")
        assert store.create().title == ""
    holder.close()
