"""Which backend answers a command, decided by run files and model files that are really there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gguf_files import write_gguf
from model_folders import write_folder
from pensieve.cli.backend import Place, check_quantization, choose, connect
from pensieve.config.settings import Folders, ModelSettings, Settings
from pensieve.errors import ServerUnreachable, UsageError
from pensieve.inference.server_client import Patience, RunningServer
from pensieve.server.run_file import RunFile


@pytest.fixture
def server(server_run_file: bytes) -> RunningServer:
    """A scripted server that runs."""
    return msgspec.json.decode(server_run_file, type=RunningServer)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Folders of a home, empty."""
    return Folders(tmp_path, tmp_path / "data", tmp_path / "state")


def settings_for(model: Path | str) -> Settings:
    """With that model."""
    return Settings(model=ModelSettings(name=str(model)))


def chosen(model: Path | str, folders: Folders, server: RunningServer) -> RunningServer | None:
    """The server that answers for the model while `server` runs, if one does."""
    RunFile(folders.run_file, server).write()
    return choose(settings_for(model), folders, pytest.fail).server


def test_a_file_is_answered_by_the_server_of_that_very_file(
    tmp_path: Path, folders: Folders, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its namesake in another folder is not; a link or a relative path leads to the same file."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_gguf(tmp_path / name / "model.gguf")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    serving = msgspec.structs.replace(server, model="model", location=str(tmp_path.resolve() / "a" / "model.gguf"))
    places: list[Path | str] = [tmp_path / "a" / "model.gguf", tmp_path / "c" / "model.gguf", "model.gguf"]
    assert [chosen(place, folders, serving) for place in places] == [serving] * 3
    assert chosen(tmp_path / "b" / "model.gguf", folders, serving) is None


def test_a_model_on_disk_is_not_answered_by_a_script_of_its_name(
    tmp_path: Path, folders: Folders, server: RunningServer
) -> None:
    """A script has no place, and plays the part only of what is not here."""
    weights = write_gguf(tmp_path / "scripted.gguf")
    assert chosen(weights, folders, server) is None
    assert chosen("scripted", folders, server) == server


def test_a_server_that_is_busy_is_not_passed_over_for_a_second_model_beside_it(
    tmp_path: Path, folders: Folders, server: RunningServer
) -> None:
    """Whichever model is wanted; it is none of the concern of who names another server."""
    weights = write_gguf(tmp_path / "mine.gguf")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        RunFile(folders.run_file, RunningServer(url, "mine", os.getpid(), location=str(weights))).write()
        for model in (weights, "smollm2-135m"):
            with pytest.raises(ServerUnreachable, match="takes connections and does not answer"):
                choose(settings_for(model), folders, lambda _: None, Patience(0.05, 0.05, 0.0))
        assert connect(server.url, None, Settings(), folders).model == "scripted"
        silent.settimeout(0.0)
        for _ in range(2):
            silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_quantization_that_would_change_nothing_is_refused(
    tmp_path: Path, folders: Folders, server: RunningServer
) -> None:
    """A GGUF file has its own, and a server has loaded its model; a folder of safetensors takes it."""
    weights, folder = write_gguf(tmp_path / "mine.gguf"), write_folder(tmp_path / "other")
    own, taken = (choose(settings_for(path), folders, pytest.fail) for path in (weights, folder))
    check_quantization(None, own)
    check_quantization("none", own)
    check_quantization("int4", taken)
    with pytest.raises(UsageError, match="mine is a GGUF file, quantized as it is: leave it out, or make"):
        check_quantization("int4", own)
    with pytest.raises(UsageError, match="has loaded scripted already: leave it out, or give it to `pensieve serve`"):
        check_quantization("int4", Place("scripted", server=server))


@pytest.mark.parametrize("command", ["ask", "chat", "serve"])
@pytest.mark.usefixtures("pensieve_home")
def test_commands_that_load_a_model_take_a_quantization(command: str, tmp_path: Path) -> None:
    """As the setting of that name, refused in the same words."""
    weights = write_gguf(tmp_path / "mine.gguf")
    words = [sys.executable, "-m", "pensieve", command, *(["hello"] if command == "ask" else []), "--quantization"]
    for more, problem in {
        ("int3",): "mlx.quantization (from --quantization): 'int3' is not accepted",
        ("int4", "--model", str(weights)): "mine is a GGUF file",
    }.items():
        ended = subprocess.run([*words, *more], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert problem in ended.stderr
