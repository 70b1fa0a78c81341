"""`pensieve serve` as a process of its own: from its first line to its exit status."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from gguf_files import write_gguf
from pensieve.config.settings import Folders
from pensieve.inference.server_client import find_server

SCRIPT = """
model = "stand-in"
[[turns]]
steps = [{type = "text", text = "one two three"}]
[[turns]]
steps = [{type = "text", text = "one"}, {type = "delay", seconds = 3600}]
"""
ENGINES = ("xllamacpp", "mlx", "llguidance", "mlx_lm", "huggingface_hub")


class Process:
    """A server process that listens."""

    def __init__(self, running: subprocess.Popen[str], url: str) -> None:
        self.running = running
        self.url = url

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; the exit status, and all it wrote to standard error."""
        self.running.send_signal(number)
        _, log = self.running.communicate()
        return self.running.returncode, log


def command(script: Path, *flags: str) -> list[str]:
    """The command line of a server that plays the script."""
    return [sys.executable, "-m", "pensieve", "serve", "--script", str(script), *flags]


@contextmanager
def started(script: Path, *flags: str, model: str = "stand-in") -> Iterator[Process]:
    """A server process; it is gone when the block is left."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(script, "--port", "0", *flags), **pipes) as running:  # type: ignore[call-overload]
        try:
            line = running.stdout.readline()
            found = re.fullmatch(rf"Pensieve answers at (http://\S+) with {model}\. Ctrl-C stops it\.\n", line)
            assert found, line or running.stderr.read()
            yield Process(running, found[1])
        finally:
            running.kill()


@pytest.fixture
def script(tmp_path: Path, pensieve_home: Path) -> Path:
    """A script file, in a home of its own."""
    del pensieve_home
    path = tmp_path / "script.toml"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def folders(pensieve_home: Path) -> Folders:
    """Where the server keeps its things."""
    return Folders(pensieve_home, pensieve_home / "data", pensieve_home / "state")


def post(url: str, **changes: object) -> dict[str, object]:
    """The body of one request, posted."""
    body = {"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]} | changes
    answer = httpx.post(f"{url}/v1/messages", json=body, trust_env=False, timeout=60)
    decoded: dict[str, object] = answer.json()
    return decoded


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_answers_is_found_and_ends_well(script: Path, folders: Folders, number: signal.Signals) -> None:
    """A stop by signal is a success; the run file is there while the server is."""
    with started(script) as process:
        assert post(process.url)["content"] == [{"type": "text", "text": "one two three"}]
        server = find_server(folders)
        assert server is not None
        assert (server.url, server.model, server.pid) == (process.url, "stand-in", process.running.pid)
        status, log = process.stop(number)
    assert status == 0
    assert "Traceback" not in log
    assert not folders.run_file.exists()


def test_each_request_is_a_line_on_standard_error(script: Path, folders: Folders) -> None:
    """Without its words."""
    del folders
    with started(script) as process:
        post(process.url, system="a secret prompt")
        _, log = process.stop(signal.SIGTERM)
    assert re.search(r"INFO POST /v1/messages 200 \d+ms model=stand-in", log)
    assert "secret" not in log


def test_the_run_file_holds_the_key_for_its_owner_alone(script: Path, folders: Folders) -> None:
    """So that other commands of the same user need not be told."""
    with started(script, "--api-key", "s3cret-key") as process:
        assert "authentication_error" in str(post(process.url))
        server = find_server(folders)
        assert server is not None
        assert server.api_key == "s3cret-key"
        assert folders.run_file.stat().st_mode & 0o777 == 0o600
        assert folders.state.stat().st_mode & 0o777 == 0o700


def test_the_run_file_says_which_file_is_served(tmp_path: Path, folders: Folders) -> None:
    """By its true place, from whatever folder and by whatever path it was named; the model is not loaded for that."""
    weights = write_gguf(tmp_path / "mine.gguf")
    words = [sys.executable, "-m", "pensieve", "serve", "--port", "0", "--model", "./mine.gguf"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("Pensieve answers")
        server = find_server(folders)
        running.terminate()
    assert server is not None
    assert (server.model, server.location) == ("mine", str(weights.resolve()))


@pytest.mark.usefixtures("pensieve_home")
def test_a_known_model_that_is_not_here_names_the_pull() -> None:
    """The first thing anyone on a fresh machine sees."""
    words = [sys.executable, "-m", "pensieve", "serve", "--port", "0", "--model", "smollm2-135m"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "`pensieve pull smollm2-135m` fetches it" in ended.stderr


def test_a_stop_ends_a_stream_under_way_with_an_error_frame(script: Path) -> None:
    """After a moment of grace, and well before it would end by itself."""
    body = {"model": "any", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with started(script) as process, httpx.Client(trust_env=False, timeout=60) as client:
        post(process.url)
        with client.stream("POST", f"{process.url}/v1/messages", json=body) as answer:
            chunks = answer.iter_text()
            heard = next(chunks)
            process.running.send_signal(signal.SIGTERM)
            heard += "".join(chunks)
        status, _ = process.stop(signal.SIGTERM)
    assert heard.splitlines()[-3] == "event: error"
    assert status == 0


def test_a_port_in_use_names_its_holder(script: Path) -> None:
    """In one line, with what to do."""
    with started(script) as process:
        port = process.url.rpartition(":")[2]
        second = subprocess.run(command(script, "--port", port), capture_output=True, text=True, check=False)
        pid = process.running.pid
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: port {port} is taken by the Pensieve server with stand-in, process {pid}:")
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--host", "0.0.0.0"), "other machines"),
        (("--port", "99999"), "port"),
        (("--port", "many"), "port"),
    ],
)
def test_a_wrong_flag_is_one_sentence(script: Path, flags: tuple[str, str], words: str) -> None:
    """And exit status 2, before anything is started."""
    ended = subprocess.run(command(script, *flags), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_script_names_its_mistake(script: Path) -> None:
    """With the file and the field."""
    script.write_text("[[turns]]\nsteps = 1")
    ended = subprocess.run(command(script), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "script.toml" in ended.stderr
    assert "turns" in ended.stderr


@pytest.mark.parametrize("name", ["none.toml", "."])
def test_a_script_that_is_no_file_is_refused(folders: Folders, name: str) -> None:
    """By name, with the system's reason."""
    del folders
    ended = subprocess.run(command(Path(name)), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "cannot read" in ended.stderr


def test_the_built_in_script_is_played(folders: Folders) -> None:
    """A demo needs no file and no model."""
    del folders
    with started(Path("demo"), model="scripted") as process:
        assert "no model is loaded" in str(post(process.url, max_tokens=100))


def test_a_model_that_is_not_here_is_refused_before_the_server_starts(folders: Folders) -> None:
    """With the way to get one."""
    flags = [sys.executable, "-m", "pensieve", "serve", "--port", "0", "--model", "no-such-model"]
    ended = subprocess.run(flags, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "pensieve pull" in ended.stderr
    assert not folders.run_file.exists()


def test_a_serving_front_process_has_loaded_no_engine() -> None:
    """Whatever is imported to serve a model; it would cost the start and could take the process down."""
    show = "import json, sys; import pensieve.cli.main, pensieve.cli.serve; print(json.dumps(list(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", show], capture_output=True, check=True)
    packages = {name.partition(".")[0] for name in msgspec.json.decode(ended.stdout, type=list[str])}
    assert {"uvicorn", "starlette", "pensieve"} <= packages
    assert not packages & set(ENGINES)


def test_reset_speaks_to_the_running_server(script: Path) -> None:
    """And says so where there is none."""
    command = [sys.executable, "-m", "pensieve", "reset"]
    with started(script) as server:
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        assert told.stdout == f"{server.url} tries again; stand-in is ready\n"
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (alone.returncode, "no Pensieve server" in alone.stderr) == (1, True)
