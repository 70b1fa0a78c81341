"""`pensieve claude`, `codex` and `opencode`, from command to exit status: stand-ins for agents, a tiny model."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_files import write_sparse
from gguf_models import write_gguf_model
from pensieve.cli.agents import split_words
from served import command, variables
from tiny_models import make_tiny_model

REPOSITORY = Path(__file__).parent.parent.parent
OWN = {"--keep-server": False, "--local-model": True}
TELL = """#!/usr/bin/env python3
import json, os, sys
if sys.argv[1:] == ["--version"]:
    print("2.1.330 (Claude Code)")
    sys.exit(0)
with open(os.environ["TOLD"], "w") as file:
    json.dump({"words": sys.argv[1:], "environment": dict(os.environ), "input": sys.stdin.read()}, file)
exec(os.environ.get("THEN", ""))
sys.exit(5)
"""
ASK = """
import urllib.request
def status(key):
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/models"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers={"x-api-key": key})).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
"""


@pytest.mark.parametrize(
    ("words", "own", "rest"),
    [
        ([], [], []),
        (["--print", "--keep-server"], [], ["--print", "--keep-server"]),
        (["--keep-server", "--", "--help"], ["--keep-server"], ["--", "--help"]),
        (["--local-model", "m", "--local-model=n", "hi"], ["--local-model", "m", "--local-model=n"], ["hi"]),
        (["--model", "x"], [], ["--model", "x"]),
    ],
)
def test_our_options_stand_first_and_the_rest_is_untouched(words: list[str], own: list[str], rest: list[str]) -> None:
    """What stands behind the first foreign word is the agent's, whatever it is."""
    assert split_words(words, OWN) == (own, rest)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a tiny model and stand-ins for the agents, whose server has gone at the end."""
    home = tmp_path_factory.mktemp("agents")
    folder = make_tiny_model(home / "tiny", "qwen2", max_position_embeddings=8_192)
    write_gguf_model(home / "tiny.gguf", folder)
    (home / "bin").mkdir()
    for agent in ("claude", "codex", "opencode"):
        (home / "bin" / agent).write_text(TELL)
        (home / "bin" / agent).chmod(0o755)
    yield home
    give_up = time.monotonic() + 60
    while (home / "state" / "server.json").exists():
        assert time.monotonic() < give_up, "the server stays although every terminal has left"
        time.sleep(0.1)


def start(
    home: Path,
    *words: str,
    agent: str = "claude",
    told: str = "told.json",
    then: str = "",
    script: Path | str = "",
    cwd: Path | str = "",
    **more: str,
) -> subprocess.Popen[str]:
    """The command, or the script for it, with these words, in that home."""
    settings = {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PENSIEVE_MODEL": str(home / "tiny.gguf"),
        "PENSIEVE_PORT": "0",
        "PENSIEVE_LLAMACPP_THREADS": "1",
        "PENSIEVE_SERVER_LINGER_SECONDS": "3",
        "TOLD": str(home / told),
        "THEN": ASK + then,
    }
    return subprocess.Popen(
        ["sh", str(script), *words] if script else command(agent, *words),
        env=variables(home) | settings | more,
        text=True,
        cwd=cwd or home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def told(home: Path, name: str = "told.json") -> dict[str, str]:
    """The environment that the stand-in was given."""
    content = json.loads((home / name).read_text())
    environment: dict[str, str] = content["environment"]
    return environment


def test_two_terminals_share_a_server_and_hold_keys_of_their_own(home: Path) -> None:
    """Started at the same moment; each key is good while its terminal is there, and the agent's status is ours."""
    check = "sys.exit(status(os.environ['ANTHROPIC_AUTH_TOKEN']) - 200 or status('pensieve-terminal-made-up') - 401)"
    both = [start(home, "--print", "hi", told=f"{name}.json", then=check) for name in ("one", "two")]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    one, two = told(home, "one.json"), told(home, "two.json")
    assert one["ANTHROPIC_BASE_URL"] == two["ANTHROPIC_BASE_URL"]
    assert one["ANTHROPIC_AUTH_TOKEN"] != two["ANTHROPIC_AUTH_TOKEN"]
    assert list((home / "state" / "keys").iterdir()) == []


def test_the_agent_gets_the_words_the_limits_and_nothing_inherited(home: Path) -> None:
    """A small context makes it run bare, which is said on standard error and nowhere else."""
    process = start(home, "--print", "--", "-x", ANTHROPIC_API_KEY="x", CLAUDE_CODE_USE_BEDROCK="1")
    printed, said = process.communicate(timeout=120)
    environment = told(home)
    assert (process.returncode, printed) == (5, "")
    assert json.loads((home / "told.json").read_text())["words"] == ["--print", "--", "-x"]
    assert environment["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "16384"
    assert environment["CLAUDE_CODE_SIMPLE"] == "1"
    assert environment["CLAUDE_CONFIG_DIR"] == str(home / "data" / "agents" / "claude")
    assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK"} & environment.keys()
    assert "runs bare" in said


def test_codex_and_opencode_get_the_same_each_in_its_own_words(home: Path) -> None:
    """Both at once, beside one server: where it is, the key in a variable, and the user's words untouched."""
    words = ("exec", "--", "-x", "two words")
    both = {agent: start(home, *words, agent=agent, told=f"{agent}.json") for agent in ("codex", "opencode")}
    for agent, process in both.items():
        printed, said = process.communicate(timeout=120)
        assert (process.returncode, printed, "fewer tools" in said) == (5, "", True), said
        assert told(home, f"{agent}.json")["PENSIEVE_TERMINAL_KEY"].startswith("pensieve-terminal-")
    given, heard = (json.loads((home / f"{agent}.json").read_text())["words"] for agent in both)
    assert (tuple(given[-4:]), tuple(heard)) == (words, words)
    config = json.loads(told(home, "opencode.json")["OPENCODE_CONFIG_CONTENT"])
    address = config["provider"]["pensieve"]["options"]["baseURL"]
    assert f'model_providers.pensieve.base_url="{address}"' in given
    assert told(home, "codex.json")["CODEX_HOME"] == str(home / "data" / "agents" / "codex")


def test_a_server_that_dies_under_the_agent_is_there_again(home: Path) -> None:
    """At the same address and for the same key, so that the agent's own retries succeed; afterwards it is told."""
    kill = f"""
import signal, time
pid = json.load(open({str(home / "state" / "server.json")!r}))["pid"]
os.kill(pid, signal.SIGKILL)
while status(os.environ["ANTHROPIC_AUTH_TOKEN"]) != 200:
    time.sleep(0.1)
"""
    process = start(home, then=kill)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 5, said
    assert "the server died while the agent ran, and was started again" in said


def test_what_hinders_the_start_is_one_sentence(home: Path) -> None:
    """A port that is taken, a model that is broken or too large for memory, a file where a folder should be."""
    others = [str(home / f"other-{number}") for number in range(3)]
    (home / "broken.gguf").write_bytes((home / "tiny.gguf").read_bytes()[:-1000])
    write_sparse(home / "huge.gguf", 10**12)
    (home / "other-0" / "state").mkdir(parents=True)
    (home / "other-0" / "state" / "server.log").write_bytes(b"what an earlier server wrote\n" * 200_000)
    (home / "blocked" / "data" / "agents").mkdir(parents=True)
    (home / "blocked" / "data" / "agents" / "claude").write_text("in the way")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        wrong = {
            f"port {port} is taken": {"PENSIEVE_PORT": port, "PENSIEVE_HOME": others[0]},
            "could not be loaded": {"PENSIEVE_MODEL": str(home / "broken.gguf"), "PENSIEVE_HOME": others[1]},
            "it needs 1000.": {"PENSIEVE_MODEL": str(home / "huge.gguf"), "PENSIEVE_HOME": others[2]},
            "cannot be used": {"PENSIEVE_HOME": str(home / "blocked")},
        }
        for sentence, settings in wrong.items():
            process = start(home, **settings)
            printed, said = process.communicate(timeout=120)
            assert (printed, process.returncode != 0) == ("", True)
            assert sentence in said
            assert "Traceback" not in said


def test_another_model_is_not_put_beside_the_one_that_is_served(home: Path) -> None:
    """Two may be too large for memory: the way out is named, with both names."""
    shutil.copy(home / "tiny.gguf", home / "second.gguf")
    first = start(home, then="print(flush=True); import time; time.sleep(60)")
    assert first.stdout is not None
    first.stdout.readline()
    second = start(home, "--local-model", str(home / "second.gguf"), told="second.json")
    _, said = second.communicate(timeout=120)
    first.terminate()
    first.communicate(timeout=60)
    assert (second.returncode, first.returncode) == (2, 143)
    assert "runs tiny" in said
    assert "second.gguf" in said


def test_nothing_of_the_folder_it_is_called_in_is_imported(home: Path) -> None:
    """It may be anybody's project: neither the launcher of a checkout nor the server that it starts runs its files."""
    project, checkout = home / "project", home / "checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / "scripts").mkdir()
    project.mkdir()
    (project / "click.py").write_text("open('ran', 'w')")
    shutil.copy(REPOSITORY / "scripts" / "claude-local", checkout / "scripts")
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    process = start(home, script=checkout / "scripts" / "claude-local", cwd=project)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, (project / "ran").exists()) == (5, False), said
