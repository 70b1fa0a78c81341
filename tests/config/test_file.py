"""The settings file: what is read, and how each mistake in it is told."""

from __future__ import annotations

import re

import pytest

from pensieve.errors import ConfigurationError

from .conftest import Sources


def refusal(sources: Sources, text: str) -> str:
    """What is told of a settings file with that text."""
    sources.write_file(text)
    with pytest.raises(ConfigurationError) as caught:
        sources.load()
    assert str(sources.config_file) in str(caught.value)
    return str(caught.value).replace(str(sources.config_file), "FILE")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\nprot = 1\n", "server.prot (from FILE): is not a setting: did you mean server.port?"),
        ("port = 1\n", "port (from FILE): is not a setting: did you mean server.port?"),
        ("[sever]\nport = 1\n", "sever (from FILE): is not a setting: did you mean server?"),
        ("[zzz]\n", "zzz (from FILE): is not a setting: `pensieve config show` lists the settings"),
        ("server = 5\n", "server (from FILE): is not accepted as a value: a table, [server]"),
        ("[server]\nport = '80'\n", "server.port (from FILE): '80' is not accepted: a whole number from 0 to 65535"),
    ],
)
def test_a_setting_that_is_wrong_is_told_with_its_key(sources: Sources, text: str, told: str) -> None:
    """Unknown names come with the nearest known one, wrong values with what is accepted."""
    assert refusal(sources, text) == told


@pytest.mark.parametrize("text", ["[server]\nport =\n", "a = 1\na = 2\n", "x = 1\ny = [1, \n"])
def test_a_syntax_error_names_the_line(sources: Sources, text: str) -> None:
    """The place is told, not only the file."""
    assert re.search(r"FILE is not TOML: .*(line [23]|end of document)", refusal(sources, text))


@pytest.mark.parametrize("text", ["x = " + "[" * 50_000, "x = " + "9" * 5000])
def test_a_file_made_to_hurt_the_parser_is_only_not_toml(sources: Sources, text: str) -> None:
    """Endless nesting and endless numbers end as one sentence."""
    assert "FILE is not TOML" in refusal(sources, text)


def test_a_file_that_cannot_be_read_is_told(sources: Sources) -> None:
    """Bytes that are no text, or a folder of that name."""
    sources.config_file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        sources.load()
    sources.config_file.unlink()
    sources.config_file.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        sources.load()


@pytest.mark.parametrize(("mode", "num_warnings"), [(0o600, 0), (0o640, 1), (0o604, 1)])
def test_a_file_with_a_key_should_be_its_owners_alone(sources: Sources, mode: int, num_warnings: int) -> None:
    """Others who can read the file can read the key."""
    sources.write_file('[server]\napi_key = "correct-horse-battery"\n')
    sources.config_file.chmod(mode)
    warnings = sources.load().warnings
    assert len(warnings) == num_warnings
    assert all("can be read by others" in warning and "horse" not in warning for warning in warnings)


def test_a_file_without_a_key_may_be_read_by_all(sources: Sources) -> None:
    """There is nothing to hide in a port."""
    sources.write_file("[server]\nport = 8080\n")
    sources.config_file.chmod(0o644)
    assert sources.load().warnings == ()


def test_lists_and_whole_numbers_of_toml_fit_their_settings(sources: Sources) -> None:
    """An array is a list, and 1 is a number where 1.0 would be."""
    sources.write_file('[server]\nallowed_hosts = ["a", "b"]\n[generation]\ntemperature = 1\n')
    settings = sources.load().settings
    assert settings.server.allowed_hosts == ("a", "b")
    assert settings.generation.temperature == 1.0
