"""`pensieve setup claude-code` and `pensieve env`, against a scripted server."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coding_agents import write_script
from gguf_files import write_sparse
from served import command, serve, url_of, variables


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose server plays a script."""
    home = tmp_path_factory.mktemp("setup")
    script = write_script(home / "script.json", {"steps": []}, context_tokens=32_768)
    with serve(home, "--script", str(script), secret="nothing") as server:
        (home / "url").write_text(url_of(server))
        yield home


def run(home: Path, *words: str, said: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """One of our commands, by a user whose home this is."""
    environment = variables(home) | {"HOME": str(home)} | more
    environment.pop("CLAUDE_CONFIG_DIR", None)
    return subprocess.run(
        command(*words), check=False, env=environment, input=said, capture_output=True, text=True, cwd=home, timeout=120
    )


def test_a_change_is_shown_made_and_undone(home: Path) -> None:
    """Byte for byte; the key in it is one that the server takes, until then."""
    settings = home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"model":   "opus"}')
    url = (home / "url").read_text()
    done = run(home, "setup", "claude-code", "--yes", PENSIEVE_PORT=url.rpartition(":")[2])
    assert (done.returncode, done.stderr) == (0, "")
    env = json.loads(settings.read_text())["env"]
    assert env["ANTHROPIC_BASE_URL"] == url
    assert "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST" not in env
    assert env["ANTHROPIC_AUTH_TOKEN"] not in done.stdout
    assert len(list((home / "state" / "keys").iterdir())) == 1
    undone = run(home, "setup", "claude-code", "--undo")
    assert "byte for byte" in undone.stdout
    assert settings.read_text() == '{"model":   "opus"}'
    assert list((home / "state" / "keys").iterdir()) == []


def test_the_port_of_the_settings_is_written_and_not_a_passing_one(home: Path) -> None:
    """The server that runs now may be anywhere; both addresses are named, and how to have the other."""
    url, port = (home / "url").read_text(), "17777"
    done = run(home, "setup", "claude-code", said="n\n", PENSIEVE_PORT=port)
    assert f'"ANTHROPIC_BASE_URL": "http://127.0.0.1:{port}"' in done.stdout
    assert f"listens at {url}; your settings say port {port}" in done.stderr
    assert f"PENSIEVE_PORT={url.rpartition(':')[2]} pensieve setup" in done.stderr


def test_a_port_that_another_program_has_is_not_written(home: Path) -> None:
    """It would be sent prompts and the key, today and not only tomorrow; how to have the other address is named."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        done = run(home, "setup", "claude-code", "--yes", PENSIEVE_PORT=str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"port {port} of your settings is taken by another program" in done.stderr
    assert f"PENSIEVE_PORT={(home / 'url').read_text().rpartition(':')[2]} pensieve setup" in done.stderr
    assert list((home / "state" / "keys").iterdir()) == []


def test_any_free_port_is_no_address_to_write_down(home: Path) -> None:
    """Not even that of a server which runs."""
    done = run(home, "setup", "claude-code", "--yes", PENSIEVE_PORT="0")
    assert done.returncode != 0
    assert "must last" in done.stderr


def test_without_a_yes_nothing_is_changed(home: Path) -> None:
    """Nor is a key left behind."""
    done = run(home, "setup", "claude-code", said="n\n")
    assert done.returncode != 0
    assert "ANTHROPIC_BASE_URL" in done.stdout
    assert not (home / "data" / "agents" / "setup-claude-code.json").exists()
    assert list((home / "state" / "keys").iterdir()) == []


def evaluated(exports: str, then: str) -> str:
    """What a shell prints that has evaluated the exports."""
    return subprocess.run(["sh", "-c", f"{exports}\n{then}"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("client", "name"), [("claude", "ANTHROPIC_BASE_URL"), ("openai", "OPENAI_BASE_URL")])
def test_a_shell_can_evaluate_what_env_prints(home: Path, client: str, name: str) -> None:
    """With a key for that terminal."""
    done = run(home, "env", client)
    assert evaluated(done.stdout, f'printf %s "${name}"').startswith((home / "url").read_text())
    assert "pensieve-terminal-" in done.stdout


def test_a_question_that_fails_leaves_no_key_behind(tmp_path: Path) -> None:
    """It would keep a server up for nobody as long as the terminal is open."""
    done = run(tmp_path, "env", "claude", PENSIEVE_MODEL="no-such-model")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert list((tmp_path / "state" / "keys").iterdir()) == []


def test_a_shell_gets_opencodes_whole_configuration(home: Path) -> None:
    """In one variable, and the key in another."""
    show = 'printf "%s\\n%s" "$PENSIEVE_TERMINAL_KEY" "$OPENCODE_CONFIG_CONTENT"'
    key, config = evaluated(run(home, "env", "opencode").stdout, show).split("\n")
    assert key.startswith("pensieve-terminal-")
    assert json.loads(config)["provider"]["pensieve"]["options"]["baseURL"] == (home / "url").read_text() + "/v1"


def test_a_shell_gets_a_codex_that_is_told_of_the_server(home: Path) -> None:
    """A function before the user's own program, since Codex reads no address from variables."""
    (home / "bin").mkdir()
    (home / "bin" / "codex").write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    (home / "bin" / "codex").chmod(0o755)
    words = evaluated(run(home, "env", "codex").stdout, f"PATH={home}/bin:$PATH\ncodex exec 'two words'").splitlines()
    assert f'model_providers.pensieve.base_url="{(home / "url").read_text()}/v1"' in words
    assert words[-2:] == ["exec", "two words"]


def test_an_address_that_is_written_down_is_never_any_free_port(tmp_path: Path) -> None:
    """Another program could have it tomorrow, and would be sent prompts and the key."""
    write_sparse(tmp_path / "m.gguf", 10**6)
    with socket.socket() as stranger:
        with suppress(OSError):  # whoever has it already will do as well
            stranger.bind(("127.0.0.1", 7777))
            stranger.listen()
        done = run(tmp_path, "setup", "claude-code", "--yes", PENSIEVE_MODEL=str(tmp_path / "m.gguf"))
    assert done.returncode != 0
    assert "7777 is taken" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".claude").exists()
