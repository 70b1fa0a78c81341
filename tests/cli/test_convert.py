"""`pensieve models convert`: what it says, where the result lands, and that nothing is left of one that failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_models import write_gguf_model
from pensieve.cli.main import main
from pensieve.config.settings import Folders
from pensieve.inference.conversion import Job
from pensieve.inference.conversion import convert as run_job
from pensieve.models.manifest import MANIFEST_NAME
from pensieve.models.registry import Registry
from tiny_models import make_tiny_model

CONVERT = (sys.executable, "-m", "pensieve", "models", "convert")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama's folder."""
    return make_tiny_model(tmp_path_factory.mktemp("source") / "tiny", "llama")


@pytest.fixture
def registry(pensieve_home: Path) -> Registry:
    """The models of the test's home."""
    home = Folders(config=pensieve_home, data=pensieve_home / "data", state=pensieve_home / "state")
    return Registry(home.models)


@pytest.fixture
def running(source: Path, registry: Registry) -> Iterator[subprocess.Popen[str]]:
    """A conversion that has begun to write, and its process, which has ended at last."""
    command = [*CONVERT, str(source), "--out", "tiny-8", "--bits", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(registry.folder.glob(".partial/tiny-8/*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process
        process.kill()


def child_of(process: subprocess.Popen[str]) -> int:
    """The process that converts."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def run(*words: object) -> int:
    """One command in this process; its exit status."""
    return main(["models", "convert", *map(str, words)])


def test_a_folder_becomes_a_model_with_a_name(
    source: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Size, bits and perplexity before and after; the model is listed, found, and here already for a second time."""
    assert run(source, "--out", "Tiny-8", "--bits", "8", "--group-size", "32") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == ["tiny-8", "size", "bits/weight", "perplexity"]
    assert "int8 g32" in lines[0]
    assert "->" in lines[3]
    spec = registry.find("tiny-8")
    assert (spec.format, spec.origin, spec.quantization) == ("mlx", "convert", "int8 g32")
    assert run(source, "--out", "tiny-8") == 2
    assert "is here already: choose another --out, or replace it with --force" in capsys.readouterr().err
    assert not list(registry.folder.glob(".partial/tiny-8/*"))


def test_a_converted_model_is_replaced_only_by_force(
    source: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """And may itself be the source; what was quantized already is said to be."""
    assert run(source, "--out", "m", "--bits", "8", "--no-check") == 0
    assert run("m", "--out", "m", "--bits", "4", "--force", "--no-check") == 0
    assert "warning: the source is quantized already (int8" in capsys.readouterr().err
    assert registry.find("m").quantization.startswith("int4")


@pytest.mark.usefixtures("pensieve_home")
def test_a_gguf_file_becomes_a_folder(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside it nothing else appears; a plain folder name without a slash is a source as well."""
    path = write_gguf_model(tmp_path / "tiny.gguf", source, kind="Q8_0")
    assert run(path, "--out", tmp_path / "out", "--no-check") == 0
    assert "int8 g32" in capsys.readouterr().out
    assert sorted(child.name for child in tmp_path.iterdir()) == ["home", "out", "tiny.gguf"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"
    os.chdir(tmp_path)
    assert run("out", "--out", "./again", "--no-check") == 0


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("nope", "--out", "x"), 1, "model: nope is not here"),
        (("./nope", "--out", "x"), 2, "there is no file ./nope"),
        ((".", "--out", "x"), 1, "this is a folder with GGUF files: name one of the files"),
        (("junk.gguf", "--out", "x"), 1, "this is not a GGUF file"),
        (("cut.gguf", "--out", "x"), 1, "its header promises"),
        (("gemma.gguf", "--out", "x"), 1, "family gemma3 cannot be imported, llama, qwen2, qwen3, phi3, phi2 can"),
        (("whole.gguf", "--out", "smollm2"), 2, "is a name that `pensieve pull` fetches"),
        (("whole.gguf", "--out", "./foreign", "--force"), 2, "holds something that is no converted model"),
        (("whole.gguf", "--out", "./none/x"), 2, "make it first"),
        (("whole.gguf", "--out", "bad name"), 2, "cannot be a model's name"),
        (("whole.gguf", "--out", "x", "--bits", "3"), 2, "'3' is not one of 'keep', '4', '8', 'none'"),
    ],
)
def test_what_cannot_be_converted_is_one_line(
    words: tuple[str, ...],
    status: int,
    sentence: str,
    source: Path,
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With an exit status, and no model left of it."""
    whole = write_gguf_model(Path("whole.gguf"), source).read_bytes()
    Path("cut.gguf").write_bytes(whole[: len(whole) // 2])
    Path("junk.gguf").write_bytes(b"junk" * 100)
    write_gguf_model(Path("gemma.gguf"), source, general__architecture="gemma3")
    Path("foreign").mkdir()
    Path("foreign", "letter.txt").write_text("mine")
    assert run(*words) == status
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert registry.entries() == ()
    assert Path("foreign", "letter.txt").read_text() == "mine"


def test_a_converter_that_is_killed_is_one_error(running: subprocess.Popen[str], registry: Registry) -> None:
    """Nothing of it counts as a model, and nothing of it stays."""
    os.kill(child_of(running), signal.SIGKILL)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert "error: model tiny could not be loaded: the process that converted it ended (killed by SIGKILL)" in said
    assert registry.entries() == ()
    assert not list(registry.folder.glob(".partial/tiny-8"))


def test_ctrl_c_keeps_nothing(running: subprocess.Popen[str], registry: Registry) -> None:
    """One line, the status of an interruption, and the process that converts is gone as well."""
    child = child_of(running)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert said.splitlines()[-1] == "stopped; nothing was kept"
    assert not Path(f"/proc/{child}").exists()
    assert not list(registry.folder.glob(".partial/tiny-8"))


def test_a_reader_that_leaves_is_no_fault_of_the_model(source: Path, tmp_path: Path) -> None:
    """`2>&1 | head -1` closes the pipe that progress is written to: the model is not blamed for it."""

    def gone(_stage: str, _done_bytes: int, _total_bytes: int, /) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_job(Job(source=str(source), name="tiny", folder=str(tmp_path)), gone, print)


def test_a_killed_command_takes_the_converter_along(
    running: subprocess.Popen[str], source: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it left is no model, and the next conversion begins anew."""
    child = child_of(running)
    running.kill()
    running.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert registry.entries() == ()
    (registry.folder / ".partial" / "tiny-8" / "stale.safetensors").write_bytes(b"stale")
    assert run(source, "--out", "tiny-8", "--no-check") == 0
    assert "tiny-8 is ready" in capsys.readouterr().out
    assert not (registry.folder / "tiny-8" / "stale.safetensors").exists()
    assert (registry.folder / "tiny-8" / MANIFEST_NAME).exists()


def test_a_full_disk_is_said_to_be_full(source: Path, tmp_path: Path, pensieve_home: Path) -> None:
    """With what is needed and what is free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        command = [*CONVERT, str(source), "--out", str(disk / "m"), "--no-check"]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=pensieve_home, check=False, timeout=60)
        assert ended.returncode == 1
        assert "error: no room in" in ended.stderr
        assert "are needed" in ended.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.model
def test_the_starter_model_is_imported_and_knows_its_capitals(
    starter_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block kept, through its own template and tokenizer, as under llama.cpp."""
    assert run("smollm2-135m", "--out", "smollm2-135m-mlx", "--no-check") == 0
    assert "int4+int8, context 8,192 tokens" in capsys.readouterr().out
    answer = subprocess.run(
        [sys.executable, "-c", _ASK, str(starter_home / "data" / "models" / "smollm2-135m-mlx")],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    assert "The capital of France is Paris" in answer.stdout


_ASK = """
import sys
import mlx.core as mx
from pensieve.config.settings import Settings
from pensieve.inference.mlx.architectures import make_caches
from pensieve.inference.mlx.loader import load
from pensieve.models.spec import ModelSpec

found = load(ModelSpec(name="m", location=sys.argv[1], format="mlx"), Settings())
asked = "<|im_start|>user\\nWhat is the capital of France?<|im_end|>\\n<|im_start|>assistant\\n"
stream, caches, tokens = found.tokenizer.stream(), make_caches(found.model), found.tokenizer.encode(asked)
for _ in range(8):
    tokens = [int(found.model(mx.array([tokens]), cache=caches)[0, -1].argmax())]
    print(stream.add(tokens[0]), end="")
"""
