"""What was typed before: a file of one's own, which may be torn, strange or missing."""

from __future__ import annotations

import resource
import stat
from pathlib import Path

from pensieve.cli.chat import input_history
from pensieve.cli.chat.input_history import KEPT_ENTRIES, InputHistory


def test_what_was_typed_comes_back(tmp_path: Path) -> None:
    """Lines and all; twice in a row is once, and blanks are nothing."""
    path = tmp_path / "history"
    history = InputHistory(path)
    for text in ("one", "one", "two\nlines ☃", "  ", "one", "lone \ud800"):
        history.add(text)
    assert InputHistory(path).load() == ["one", "two\nlines ☃", "one", "lone ?"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_chats_add_to_one_file(tmp_path: Path) -> None:
    """Neither loses a line of the other."""
    first, second = InputHistory(tmp_path / "history"), InputHistory(tmp_path / "history")
    first.add("a")
    second.add("b")
    first.add("c")
    assert second.load() == ["a", "b", "c"]


def test_a_torn_line_costs_nothing_else(tmp_path: Path) -> None:
    """Nor do bytes that are no text."""
    path = tmp_path / "history"
    path.write_bytes(b'"whole"\n"torn\n\xff\xfe\n[1]\n"after"\n')
    assert InputHistory(path).load() == ["whole", "after"]


def test_a_file_that_others_could_read_is_closed(tmp_path: Path) -> None:
    """Before anything is added."""
    path = tmp_path / "history"
    path.touch(mode=0o644)
    path.chmod(0o644)
    InputHistory(path).add("secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_costs_the_history_and_not_the_question(tmp_path: Path) -> None:
    """Nothing is raised at whoever typed it."""
    history = InputHistory(tmp_path / "history")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        history.add("typed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert history.load() == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """It could lead to a file of somebody else's choice."""
    target = tmp_path / "target"
    target.write_text("untouched")
    (tmp_path / "history").symlink_to(target)
    history = InputHistory(tmp_path / "history")
    history.add("text")
    assert (history.load(), target.read_text()) == ([], "untouched")


def test_a_long_file_keeps_its_newest(tmp_path: Path) -> None:
    """And becomes shorter for good."""
    path = tmp_path / "history"
    path.write_text("".join(f'"{number:08} {"x" * 2_000}"\n' for number in range(2_500)))
    loaded = InputHistory(path).load()
    assert loaded[-1].startswith("00002499")
    assert len(loaded) <= KEPT_ENTRIES
    assert path.stat().st_size <= input_history.MAX_FILE_BYTES
