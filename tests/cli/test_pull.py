"""`pensieve pull`, against a hub on loopback and, marked, the real starter model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gguf_files import gguf_bytes
from hub_server import HubServer, running_hub
from model_folders import folder_files
from pensieve.cli.main import main

PULL = (sys.executable, "-m", "pensieve", "pull")


@pytest.fixture
def hub(pensieve_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with one model, named by HF_ENDPOINT, and an empty home."""
    assert pensieve_home.is_dir()
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.files["o/r/tiny.gguf"] = gguf_bytes()
        yield server


def read_all(terminal: int) -> str:
    """Everything that was written to a terminal whose other side is closed."""
    drawn = b""
    with open(terminal, "rb", buffering=0) as screen, suppress(OSError):  # Linux ends it with an error, macOS plainly
        while chunk := screen.read(4096):
            drawn += chunk
    return drawn.decode()


def test_pulling_tells_its_steps_and_its_end(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes to standard error as plain lines where there is no terminal; the last line says what is here."""
    assert main(["pull", "o/r"]) == 0
    said = capsys.readouterr()
    assert said.out == "tiny is ready: 480 bytes of weights, Q4_1, context 2,048 tokens\n"
    assert [line.partition(":")[0] for line in said.err.splitlines()] == ["downloading", "checking"]
    assert len(hub.ranges()) == 1


def test_pulling_again_fetches_only_by_force(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What is here is said to be here; `--force` fetches it anew."""
    assert main(["pull", "o/r"]) == main(["pull", "tiny"]) == 0
    assert "already here" in capsys.readouterr().err
    assert len(hub.ranges()) == 1
    assert main(["pull", "tiny", "--force"]) == 0
    assert len(hub.ranges()) == 2


def test_a_terminal_gets_a_bar(hub: HubServer) -> None:
    """On a terminal the same pull draws."""
    assert hub.files
    ours, theirs = os.openpty()
    ended = subprocess.run([*PULL, "o/r"], stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60, check=True)
    os.close(theirs)
    drawn = read_all(ours)
    assert "checking" in drawn
    assert "\x1b" in drawn
    assert ended.stdout.startswith("tiny is ready")


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("o/nowhere", 1, "no repository for o/nowhere"),
        ("o/r/weights.bin", 2, "is a pickle"),
        ("no-such-name", 1, "is not here"),
        ("smolm2", 1, "did you mean smollm2?"),
        ("./typo.gguf", 2, "there is no file ./typo.gguf"),
        ("o/r:Q9", 2, "no single file of it is Q9; name one of o/r/tiny.gguf"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(
    hub: HubServer, capsys: pytest.CaptureFixture[str], name: str, status: int, words: str
) -> None:
    """Every refusal is a line with the next step, and an exit status."""
    assert main(["pull", name]) == status
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert hub.ranges() == []


def test_a_download_that_broke_off_goes_on(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A connection that is cut in the middle is taken up again within the same command."""
    hub.cuts = [700]
    assert main(["pull", "o/r/tiny.gguf"]) == 0
    assert hub.ranges() == ["", "bytes=700-"]
    assert "tiny is ready" in capsys.readouterr().out


def test_the_format_can_be_chosen(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A repository with both is one model or the other; a word that is neither is refused."""
    hub.files |= {f"o/r/{name}": content for name, content in folder_files().items()}
    assert main(["pull", "o/r", "--format", "mlx"]) == 0
    assert capsys.readouterr().out == "r is ready: 488 bytes of weights, int4 g64, context 2,048 tokens\n"
    assert main(["pull", "o/r", "--format", "gguf"]) == 0
    assert capsys.readouterr().out.startswith("tiny is ready: 480 bytes")
    assert main(["pull", "o/r", "--format", "onnx"]) == 2
    assert "'onnx' is not one of 'gguf', 'mlx'" in capsys.readouterr().err
    assert main(["models", "rm", "r", "--yes"]) == 0


@pytest.mark.usefixtures("pensieve_home")
def test_ctrl_c_says_how_to_go_on() -> None:
    """In one line, with the status of an interruption."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        pulling = subprocess.Popen([*PULL, "o/r"], env=environ, stderr=subprocess.PIPE, text=True)
        with pulling as process, silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "stopped; pull again to go on\n")


@pytest.mark.model
def test_the_starter_model_is_what_the_catalog_says(starter_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The catalog's planned facts are those of the file that arrived."""
    assert starter_home.is_dir()
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    starter = rows["smollm2-135m"]
    assert (starter["state"], starter["size_bytes"]) == ("ready", 98_362_432)
    assert (starter["quantization"], starter["context_tokens"]) == ("Q4_1", 8192)
