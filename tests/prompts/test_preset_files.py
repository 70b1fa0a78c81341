"""The user's own presets: what files may say, and what is told of wrong ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pensieve.errors import UsageError
from pensieve.prompts.preset_files import NEW, Shelf, read, split
from pensieve.prompts.presets import BUILT_IN
from pensieve.sampling.params import SamplingParams

TOML = """
summary = "At sea."
system = "You are {{ name }}."
temperature = 0.9
max_tokens = 50
[variables]
name = "Ann"
"""
MARKDOWN = """---
summary: At sea.
# a comment
temperature: 0.9
max_tokens: 50
variables.name: Ann
---
You are {{ name }}.
"""


@pytest.mark.parametrize(("suffix", "content"), [("toml", TOML), ("md", MARKDOWN)])
def test_both_forms_say_the_same(tmp_path: Path, suffix: str, content: str) -> None:
    """Words, variables, sampling, the longest answer."""
    file = tmp_path / f"pirate.{suffix}"
    file.write_text(content)
    preset = read(file)
    assert (preset.name, preset.summary, preset.render()) == ("pirate", "At sea.", "You are Ann.")
    assert (preset.sampling, preset.max_tokens) == (SamplingParams(temperature=0.9), 50)


def test_markdown_without_a_front_is_all_words(tmp_path: Path) -> None:
    """A plain text is a preset."""
    (tmp_path / "plain.md").write_text("Be kind.\n")
    assert Shelf(tmp_path).find("plain").render() == "Be kind."


def test_ones_own_preset_wins_over_a_built_in_one(tmp_path: Path) -> None:
    """And the others stay."""
    (tmp_path / "coder.md").write_text("In Ada.")
    shelf = Shelf(tmp_path)
    assert shelf.find("coder").system == "In Ada."
    assert shelf.names() == tuple(sorted(BUILT_IN))
    assert shelf.find("concise") is BUILT_IN["concise"]


@pytest.mark.parametrize("name", ["../coder", "cder", "", "/etc/passwd", "x" * 100])
def test_a_name_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    """Also one that would lead out of the folder."""
    (tmp_path / "coder.md").write_text("outside")
    with pytest.raises(UsageError, match="there is no preset"):
        Shelf(tmp_path / "prompts").find(name)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.toml", "system = ", "a.toml is not a preset"),
        ("a.toml", "temprature = 1", "temprature is not known: there are"),
        ("a.toml", "temperature = 99", "temperature: 99.0 is out of range"),
        ("a.toml", "system = 5", "a.toml is not a preset: Expected `str`"),
        ("a.md", "---\ntemperature: warm\n---\n", r"Expected `float \| null`, got `str`"),
        ("a.md", "---\nsummary: x\n", "no end"),
        ("a.md", "---\nnonsense\n---\n", "line 2 is not `key: value`"),
        ("a.md", b"\xff\xfe", "cannot be read"),
        ("a.md", "x" * 1_000_001, "is longer than"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, name: str, content: str | bytes, problem: str) -> None:
    """By its name, with what is wrong in it."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=problem):
        Shelf(tmp_path).find("a")


def test_a_new_preset_is_usable_and_never_overwrites(tmp_path: Path) -> None:
    """Names that are no names are refused."""
    shelf = Shelf(tmp_path / "prompts")
    path = shelf.new("mine")
    assert path.read_text() == NEW
    assert shelf.find("mine").render() == "You are a helpful assistant."
    with pytest.raises(UsageError, match="already"):
        shelf.new("mine")
    with pytest.raises(UsageError, match="cannot be a preset's name"):
        shelf.new("../mine")


def test_a_preset_is_named_with_its_variables() -> None:
    """Quoted as in a shell."""
    assert split("translator language='Old Norse' tone=dry") == ("translator", {"language": "Old Norse", "tone": "dry"})
    for wrong in ("", "translator language", "translator 'language"):
        with pytest.raises(UsageError, match="write a preset as NAME"):
            split(wrong)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"---\n{text}\n---\n".encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_file_is_a_preset_or_a_clear_error(tmp_path: Path, content: bytes) -> None:
    """Nothing else comes of it."""
    for name in ("any.md", "any.toml"):
        (tmp_path / name).write_bytes(content)
        with suppress(UsageError):
            assert read(tmp_path / name).name == "any"
