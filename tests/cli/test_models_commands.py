"""`pensieve models`, on real folders."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gguf_files import write_gguf
from model_folders import write_folder
from pensieve.cli.main import main
from pensieve.models.folders import read_folder
from pensieve.models.manifest import Manifest, WeightFile, write_manifest
from pensieve.models.metadata import read_gguf
from pensieve.models.sizes import in_words


@pytest.fixture
def models_folder(pensieve_home: Path) -> Path:
    """A home that holds one pulled model, `tiny`."""
    folder = pensieve_home / "data" / "models" / "tiny"
    folder.mkdir(parents=True)
    weights = write_gguf(folder / "tiny.gguf")
    file = WeightFile("tiny.gguf", weights.stat().st_size, "")
    spec = read_gguf(weights).spec("tiny", origin="pull")
    write_manifest(folder, Manifest(source="hf:o/r/tiny.gguf", files=(file,), spec=spec))
    return folder.parent


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    """What `models list --json` prints, by name."""
    assert main(["models", "list", "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_the_list_shows_what_is_here_and_what_can_be(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pulled model with its facts, then the catalog's, marked as not here."""
    assert models_folder.is_dir()
    assert main(["models", "list"]) == 0
    head, tiny, blank, title, *known = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "WEIGHTS", "SIZE", "CONTEXT", "FIT"]
    assert tiny.split() == ["tiny", "gguf", "Q4_1", "1.2", "kB", "2,048", "fits"]
    assert (blank, title) == ("", "Not here yet; `pensieve pull NAME` fetches them:")
    assert known[0].split() == ["smollm2-135m", "gguf", "Q4_1", "98.4", "MB", "8,192", "fits"]
    assert {"phi-3-mini", "phi-3-mini-128k", "gpt-j-6b", "gpt-neox-20b", "gpt-oss-20b"} < {k.split()[0] for k in known}


@pytest.mark.usefixtures("pensieve_home")
def test_a_list_without_models_begins_with_what_can_be_pulled(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to know that a table may be empty."""
    assert main(["models", "list"]) == 0
    title, blank, head, first, *_ = capsys.readouterr().out.splitlines()
    assert (title, blank) == ("Not here yet; `pensieve pull NAME` fetches them:", "")
    assert (head.split()[0], first.split()[0]) == ("NAME", "smollm2-135m")


def test_the_list_fits_a_narrow_terminal(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No line is over 60 columns; a long name stands alone above its facts."""
    long = "a-model-with-a-name-of-many-words-4bit"
    write_folder(models_folder / long)
    spec, config = read_folder(models_folder / long).spec(long), models_folder / long / "config.json"
    file = WeightFile(config.name, config.stat().st_size, "")
    write_manifest(models_folder / long, Manifest(source="x", files=(file,), spec=spec))
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[lines.index(long) + 1].split() == [
        "mlx",
        "int4",
        "g64",
        *in_words(file.num_bytes).split(),
        "2,048",
        "fits",
    ]


def test_what_unfinished_pulls_left_is_shown(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to do about it, in place of the catalog's line; the parts of a model that is here are not shown."""
    for name in ("smollm2-135m", "tiny", "empty"):
        (models_folder / ".partial" / name).mkdir(parents=True)
    for name in ("smollm2-135m", "tiny"):
        (models_folder / ".partial" / name / "x.part").write_bytes(bytes(2048))
    rows = listed(capsys)
    assert [(rows[name]["state"], rows[name]["size_bytes"]) for name in ("smollm2-135m", "tiny")] == [
        ("unfinished", 2048),
        ("ready", (models_folder / "tiny" / "tiny.gguf").stat().st_size),
    ]
    assert "empty" not in rows
    assert main(["models", "list"]) == 0
    assert "\n  unfinished: pull it again to go on, or remove it\n" in capsys.readouterr().out


def test_the_list_as_json(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get exact numbers, states and places."""
    rows = listed(capsys)
    location = models_folder / "tiny" / "tiny.gguf"
    assert rows["tiny"]["state"] == "ready"
    assert rows["tiny"]["location"] == str(location)
    assert rows["tiny"]["size_bytes"] == location.stat().st_size
    assert (rows["smollm2-135m"]["state"], rows["smollm2-135m"]["location"]) == ("available", "")


def test_a_damaged_model_does_not_break_the_list(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown with what is wrong with it, cleaned for the terminal."""
    (models_folder / "tiny" / "model.json").write_text('{"\x1b[31m')
    assert listed(capsys)["tiny"]["state"] == "damaged"
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    assert "damaged: its manifest is no valid JSON" in shown
    assert "\x1b" not in shown


def test_text_out_of_model_files_is_cleaned(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A header cannot send commands to the terminal."""
    manifest = models_folder / "tiny" / "model.json"
    manifest.write_text(manifest.read_text().replace('"Q4_1"', '"\\u001b[2JQ4\\u202e"'))
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    assert "[2JQ4" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


def test_removing_with_yes(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--yes` deletes without a question and tells what it freed."""
    assert main(["models", "rm", "tiny", "--yes"]) == 0
    assert "tiny is deleted: " in capsys.readouterr().out
    assert not (models_folder / "tiny").exists()


def test_nobody_to_ask_means_no(models_folder: Path) -> None:
    """Without a terminal and without `--yes` nothing is deleted."""
    command = [sys.executable, "-m", "pensieve", "models", "rm", "tiny"]
    ended = subprocess.run(command, input="y\n", capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "say --yes" in ended.stderr
    assert (models_folder / "tiny").exists()


@pytest.mark.parametrize(("answer", "is_kept"), [(b"y\n", False), (b"n\n", True), (b"\n", True)])
def test_the_question_is_asked_at_a_terminal(models_folder: Path, answer: bytes, is_kept: bool) -> None:
    """Only a yes deletes."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    command = [sys.executable, "-m", "pensieve", "models", "rm", "tiny"]
    ended = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=30, check=False)
    os.close(ours)
    os.close(theirs)
    assert "Delete tiny (1.2 kB)?" in ended.stderr
    assert (models_folder / "tiny").exists() is is_kept
    assert (ended.returncode, "nothing was deleted" in ended.stderr) == (int(is_kept), is_kept)


def test_a_terminal_that_ends_instead_of_answering_deletes_nothing(models_folder: Path) -> None:
    """The end of input is told on a line of its own."""
    ours, theirs = pty.openpty()
    os.write(ours, b"\x04")
    command = [sys.executable, "-m", "pensieve", "models", "rm", "tiny"]
    ended = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=30, check=False)
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == 1
    assert ended.stderr.endswith("\nerror: the input ended before an answer was given\n")
    assert (models_folder / "tiny").exists()


def test_leftovers_of_a_pull_are_removed_by_name(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They too are asked about."""
    left = models_folder / ".partial" / "half"
    left.mkdir(parents=True)
    (left / "half.part").write_bytes(bytes(1024))
    command = [sys.executable, "-m", "pensieve", "models", "rm", "half"]
    asked = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False)
    assert "deleting what an interrupted pull left of half asks first" in asked.stderr
    assert left.exists()
    assert main(["models", "rm", "half", "--yes"]) == 0
    assert capsys.readouterr().out == "half is deleted: 1.0 kB freed\n"


@pytest.mark.parametrize(("name", "words"), [("tinny", "did you mean tiny?"), ("./tiny.gguf", "a file of yours")])
def test_what_cannot_be_removed_is_said(
    models_folder: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    """An unknown name and a path of one's own end in one line."""
    assert main(["models", "rm", name, "--yes"]) != 0
    assert words in capsys.readouterr().err
    assert (models_folder / "tiny").exists()
