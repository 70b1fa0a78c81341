"""The user's own settings of Claude Code: changed on request, and changed back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from pensieve.errors import UsageError
from pensieve.launch.global_settings import GlobalSettings, with_variables, without_variables

OURS = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:7777", "ANTHROPIC_MODEL": "small"}
THEIRS = b'{\n\t"model": "opus",   "env": {"ANTHROPIC_MODEL": "big", "A": "1"}\n}'


@pytest.fixture
def settings(tmp_path: Path) -> GlobalSettings:
    """A settings file that is not there yet."""
    return GlobalSettings(tmp_path / "claude" / "settings.json", tmp_path / "data" / "note.json")


def test_a_change_keeps_the_rest_and_a_copy(settings: GlobalSettings) -> None:
    """The file keeps its mode; the copy is the owner's only."""
    settings.path.parent.mkdir()
    settings.path.write_bytes(THEIRS)
    settings.path.chmod(0o640)
    backup = settings.change(OURS, "key")
    assert json.loads(settings.path.read_bytes()) == {"model": "opus", "env": {"A": "1", **OURS}}
    assert backup is not None
    assert (backup.read_bytes(), backup.stat().st_mode & 0o777) == (THEIRS, 0o600)
    assert settings.path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("before", [None, THEIRS, b"", b"{}"])
def test_undo_restores_byte_for_byte(settings: GlobalSettings, before: bytes | None) -> None:
    """Also that there was no file; a second change before it does not forget what was first."""
    settings.path.parent.mkdir()
    if before is not None:
        settings.path.write_bytes(before)
    settings.change(OURS, "key")
    settings.change({**OURS, "ANTHROPIC_MODEL": "other"}, "key")
    note, is_whole = settings.undo()
    assert (note.key, is_whole) == ("key", True)
    assert (settings.path.read_bytes() if settings.path.exists() else None) == before
    assert [path.name for path in settings.path.parent.iterdir()] == ([] if before is None else ["settings.json"])


def test_undo_of_a_file_that_was_changed_since_takes_out_only_what_is_ours(settings: GlobalSettings) -> None:
    """What the user set afterwards stays, a variable of ours that they changed included."""
    settings.path.parent.mkdir()
    settings.path.write_bytes(THEIRS)
    settings.change(OURS, "key")
    now = json.loads(settings.path.read_bytes())
    now["theme"] = "dark"
    now["env"] |= {"ANTHROPIC_BASE_URL": "http://mine.example", "B": "2"}
    settings.path.write_text(json.dumps(now))
    _, is_whole = settings.undo()
    assert not is_whole
    kept = {"A": "1", "B": "2", "ANTHROPIC_MODEL": "big", "ANTHROPIC_BASE_URL": "http://mine.example"}
    assert json.loads(settings.path.read_bytes()) == {"model": "opus", "theme": "dark", "env": kept}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Some keep their settings elsewhere and link to them."""
    (tmp_path / "real.json").write_bytes(THEIRS)
    (tmp_path / "settings.json").symlink_to(tmp_path / "real.json")
    settings = GlobalSettings(tmp_path / "settings.json", tmp_path / "note.json")
    settings.change(OURS, "key")
    settings.undo()
    assert (tmp_path / "settings.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == THEIRS


@pytest.mark.parametrize("broken", [b"{", b"[]", b'{"env": 3}', b"\xff"])
def test_a_broken_file_is_left_alone(settings: GlobalSettings, broken: bytes) -> None:
    """And said to be; with nothing changed there is nothing to undo."""
    settings.path.parent.mkdir()
    settings.path.write_bytes(broken)
    with pytest.raises(UsageError, match="mend the file"):
        settings.change(OURS, "key")
    assert settings.path.read_bytes() == broken
    with pytest.raises(UsageError, match="nothing to undo"):
        settings.undo()


NAMES = st.dictionaries(st.sampled_from("ABCDE"), st.text(max_size=3), max_size=5)


@settings_of_hypothesis(deadline=None, suppress_health_check=(HealthCheck.too_slow,))
@given(NAMES, NAMES, st.dictionaries(st.sampled_from(["model", "hooks"]), st.integers(), max_size=2))
def test_taking_out_is_the_reverse_of_putting_in(
    theirs: dict[str, str], ours: dict[str, str], rest: dict[str, int]
) -> None:
    """Whatever stood there before, as far as JSON goes."""
    before = json.dumps(rest | {"env": theirs}).encode()
    after = without_variables(with_variables(before, ours), ours, before)
    assert json.loads(after) == json.loads(before)


def test_undo_finds_the_file_that_was_changed(tmp_path: Path) -> None:
    """Though Claude Code's folder is another one by now: that one's settings are not touched."""
    for name in ("then", "now"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_bytes(THEIRS)
    GlobalSettings(tmp_path / "then" / "settings.json", tmp_path / "note.json").change(OURS, "key")
    note, is_whole = GlobalSettings(tmp_path / "now" / "settings.json", tmp_path / "note.json").undo()
    assert (Path(note.path), is_whole) == (tmp_path / "then" / "settings.json", True)
    assert [(tmp_path / name / "settings.json").read_bytes() for name in ("then", "now")] == [THEIRS, THEIRS]


def test_a_change_that_was_cut_off_is_undone_byte_for_byte(settings: GlobalSettings) -> None:
    """The note was written and the file was not, or somebody put it back by hand."""
    settings.path.parent.mkdir()
    settings.path.write_bytes(THEIRS)
    settings.change(OURS, "key")
    settings.path.write_bytes(THEIRS)
    assert settings.undo()[1]
    assert settings.path.read_bytes() == THEIRS


def test_a_file_that_may_not_be_written_is_said_and_nothing_is_noted(settings: GlobalSettings) -> None:
    """Some systems keep settings where their owner cannot write; a folder in its place stands for them here."""
    settings.path.mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be changed"):
        settings.change(OURS, "key")
    with pytest.raises(UsageError, match="nothing to undo"):
        settings.undo()


def test_half_a_surrogate_pair_stays_what_it_is() -> None:
    """It is JSON, though no text."""
    before = b'{"a": "\\ud800"}'
    assert json.loads(without_variables(with_variables(before, OURS), OURS, before)) == json.loads(before)
