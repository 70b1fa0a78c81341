"""`pensieve config`, run as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pensieve.cli.main import main
from pensieve.config.fields import FIELDS

SECRET = "correct-horse-battery"


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m pensieve`, in a process and folder of its own."""
    command = [sys.executable, "-m", "pensieve", *arguments]
    environ = os.environ | variables
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_wrong_value_ends_the_command_with_status_2_and_one_line(pensieve_home: Path) -> None:
    """The line names the setting, the source and what is accepted."""
    ended = run("config", "show", cwd=pensieve_home, PENSIEVE_PORT="70000")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: server.port (from PENSIEVE_PORT in the environment): "
        "70000 is not accepted: a whole number from 0 to 65535\n"
    )


def test_show_tells_each_setting_its_value_and_its_source(pensieve_home: Path) -> None:
    """Three sources at once, in columns."""
    (pensieve_home / "config.toml").write_text("[server]\nport = 1001\n")
    (pensieve_home / ".env").write_text("PENSIEVE_LOG_LEVEL=debug\n")
    shown = run("config", "show", cwd=pensieve_home, PENSIEVE_MODEL="m.gguf")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in shown.stdout.splitlines() if line}
    assert rows["server.port"] == ["1001", f"{pensieve_home}/config.toml"]
    assert rows["log.level"] == ["debug", "PENSIEVE_LOG_LEVEL in .env, line 1"]
    assert rows["model.name"] == ["m.gguf", "PENSIEVE_MODEL in the environment"]
    assert set(FIELDS) <= set(rows)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.usefixtures("pensieve_home")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_never_tells_the_key(
    form: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither for people nor for programs."""
    monkeypatch.setenv("PENSIEVE_API_KEY", SECRET)
    assert main(["config", "show", *form]) == 0
    shown = capsys.readouterr().out
    assert "****ry" in shown
    assert "horse" not in shown


def test_show_json_has_typed_values_file_and_warnings(
    pensieve_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program reads what a person sees."""
    monkeypatch.setenv("PENSIEVE_PROT", "1")
    assert main(["config", "show", "--json"]) == 0
    document = msgspec.json.decode(capsys.readouterr().out)
    assert document["config_file"] == {"path": str(pensieve_home / "config.toml"), "exists": False}
    assert document["settings"][1] == {"key": "server.port", "value": 7777, "source": "default"}
    assert len(document["settings"]) == len(FIELDS)
    assert document["warnings"] == ["PENSIEVE_PROT in the environment is not a setting: did you mean PENSIEVE_PORT?"]


@pytest.mark.usefixtures("pensieve_home")
def test_show_warns_at_the_end_and_makes_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Looking changes nothing."""
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("PENSIEVE_ZZZ", "1")
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().out.endswith("warning: PENSIEVE_ZZZ in the environment is not a setting\n")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("pensieve_home")
def test_foreign_text_in_a_setting_stays_in_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A system prompt may hold anything."""
    monkeypatch.setenv("PENSIEVE_SYSTEM", "be\x1b[2J\nbrief")
    assert main(["config", "show"]) == 0
    assert "be[2J brief" in capsys.readouterr().out


def test_path_tells_where_the_file_is(pensieve_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For `$EDITOR "$(pensieve config path)"`."""
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{pensieve_home}/config.toml\n"
