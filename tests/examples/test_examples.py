"""Every example runs: those that need a server against a scripted one, the one that embeds on the starter model."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from served import serve, url_of

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = {
    "turns": [
        {"contains": "first", "steps": [{"type": "text", "text": "One."}]},
        {"contains": "second", "steps": [{"type": "text", "text": "Two."}]},
        {"contains": "the sea", "steps": [{"type": "text", "text": "It is wide."}]},
        {"contains": "sun in Rome", "after_tool_result": True, "steps": [{"type": "text", "text": "Fine in Rome."}]},
        {
            "contains": "weather",
            "after_tool_result": False,
            "steps": [{"type": "tool_call", "name": "get_weather", "arguments": {"city": "Rome"}}],
        },
        {"contains": "How warm", "steps": [{"type": "text", "text": '{"city": "Rome", "degrees": 21.5}'}]},
    ]
}
Run = Callable[..., str]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a scripted server listens."""
    home = tmp_path_factory.mktemp("examples")
    script = home / "script.json"
    script.write_text(json.dumps(SCRIPT))
    with serve(home, "--script", str(script), secret="the sea") as server:
        yield url_of(server)


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs an example in this process, and gives what it prints."""

    def run_one(name: str, *words: str) -> str:
        monkeypatch.setattr("sys.argv", [name, *words])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    (tmp_path / "typed").write_text("first\nsecond\n")
    with (tmp_path / "typed").open() as typed:
        monkeypatch.setattr("sys.stdin", typed)
        monkeypatch.setenv("PENSIEVE_URL", url)
        yield run_one


@pytest.mark.parametrize(
    ("name", "words", "printed"),
    [
        ("chat.py", (), "One.\nTwo.\n"),
        ("stream.py", ("Tell me about the sea.",), "It is wide.\n(5 tokens read, 3 written)\n"),
        ("tool_loop.py", (), "[get_weather {'city': 'Rome'}: 21 degrees and sun in Rome]\nFine in Rome.\n"),
        ("structured_output.py", (), "Rome: 21.5 degrees\n"),
        ("batch.py", ("first", "second"), "first\n    One.\nsecond\n    Two.\n"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # examples are too short to close what ends with them
def test_an_example_does_what_it_says(run: Run, name: str, words: tuple[str, ...], printed: str) -> None:
    """And prints that alone."""
    assert run(name, *words) == printed


@pytest.mark.model
def test_a_model_answers_inside_a_program(starter_home: Path) -> None:
    """In a process of its own, since it starts one."""
    environ = os.environ | {"PENSIEVE_HOME": str(starter_home)}
    command = [sys.executable, str(EXAMPLES / "embed.py"), "What is the capital of France? Answer in one sentence."]
    ended = subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.split()) >= 1


def test_every_example_is_listed_and_run() -> None:
    """In the README beside them, and here."""
    names = {path.name for path in EXAMPLES.glob("*.py")}
    readme, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    assert names
    assert all(f"[{name}]({name})" in readme and f'"{name}"' in tests for name in names)
