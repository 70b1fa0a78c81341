"""Scripts as people find them: in the documentation and built in. Playing them is tested with the backend."""

from __future__ import annotations

import re
from pathlib import Path

from pensieve.inference.script import Script, Turn, load_script

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "scripts.md"


def test_the_documented_example_is_a_script(tmp_path: Path) -> None:
    """With turns by condition and turns in line."""
    found = re.search(r"```toml\n(.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "script.toml").write_text(found[1], "utf-8")
    script = load_script(tmp_path / "script.toml")
    assert [turn.is_conditional for turn in script.turns] == [True, True, False, False]


def test_every_field_is_documented() -> None:
    """A field that nobody knows of is of no use."""
    text = DOCUMENTATION.read_text("utf-8")
    for field in (*Script.__struct_fields__, *Turn.__struct_fields__):
        assert f"`{field}`" in text, field


def test_the_built_in_script_describes_itself() -> None:
    """As a model of the format `script`, with no place on the disk."""
    spec = Script.example().spec
    assert (spec.name, spec.format, spec.location) == ("scripted", "script", "")
