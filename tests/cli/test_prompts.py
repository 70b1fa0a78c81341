"""`pensieve prompts`: what is listed, shown and made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pensieve.cli.main import main
from pensieve.prompts.preset_files import Shelf


def test_presets_are_listed_with_what_is_wrong(pensieve_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Built-in ones, one's own, and one that cannot be used."""
    folder = pensieve_home / "prompts"
    folder.mkdir()
    (folder / "pirate.md").write_text("---\nsummary: At sea.\n---\nYou are {{ name }}.")
    (folder / "broken.toml").write_text("system =")
    assert main(["prompts", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["coder", "built", "in"] for line in lines)
    assert any(line.startswith("pirate") and line.endswith("yours     At sea. (needs name)") for line in lines)
    assert any(line.startswith("broken") and "not usable" in line for line in lines)


@pytest.mark.usefixtures("pensieve_home")
def test_a_preset_is_shown_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    """With the values that were given."""
    assert main(["prompts", "show", "translator", "language=Old Norse"]) == 0
    shown = capsys.readouterr().out
    assert "temperature: 0.2" in shown
    assert "You translate into Old Norse." in shown


def test_a_preset_is_made_from_another(pensieve_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And reads back as the same."""
    assert main(["prompts", "new", "mine", "--from", "teacher"]) == 0
    assert "mine.md" in capsys.readouterr().out
    mine, teacher = (Shelf(pensieve_home / "prompts").find(name) for name in ("mine", "teacher"))
    assert (mine.render(), mine.variables, mine.summary) == (teacher.render(), teacher.variables, teacher.summary)
    assert main(["prompts", "new", "mine"]) == 2
