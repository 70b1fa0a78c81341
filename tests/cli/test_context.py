"""What every command begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from pensieve.cli.context import load_settings


def test_a_command_gets_its_flags_its_folders_and_hears_the_warnings(
    pensieve_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelled variable is told before the command does anything, and not on standard output."""
    monkeypatch.chdir(pensieve_home)
    monkeypatch.setenv("PENSIEVE_PROT", "1")
    loaded = load_settings({"server.port": 8080, "server.host": None})
    assert (loaded.settings.server.port, loaded.settings.server.host) == (8080, "127.0.0.1")
    assert loaded.folders.data.is_dir()
    told = capsys.readouterr()
    assert told.err == "warning: PENSIEVE_PROT in the environment is not a setting: did you mean PENSIEVE_PORT?\n"
    assert told.out == ""
