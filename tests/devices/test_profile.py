"""What a machine is, and what comes of asking MLX in a process that fails in every way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pensieve.devices.profile import MlxDevice, MlxUnusable, ask_mlx, chip_name, installed_engines, read_profile

CHILDREN = {
    "crashes": ("import os; os.abort()", "signal 6 ended it"),
    "raises": ("raise RuntimeError('no driver')", "it failed with status 1: RuntimeError: no driver"),
    "babbles": ("print('hello')", "its answer cannot be read"),
    "lies": ('print(\'{"kind": "abacus"}\')', "its answer cannot be read"),
    "sulks": ("", "its answer cannot be read"),
    "hangs": ("import time; time.sleep(60)", "it did not answer within 1 s"),
}


@pytest.mark.parametrize("kind", CHILDREN)
def test_a_child_that_fails_is_a_reason(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash, a traceback, nonsense, silence and a hang: each ends in a sentence, none in an error."""
    source, reason = CHILDREN[kind]
    (tmp_path / "child.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = ask_mlx(1.0 if kind == "hangs" else 60.0, module="child")
    assert isinstance(answer, MlxUnusable)
    assert answer.reason.startswith(reason)


def test_a_chatty_child_is_read_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may print when it is imported."""
    (tmp_path / "child.py").write_text('print("welcome"); print(\'{"kind": "metal", "working_set_bytes": 5}\')')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask_mlx(module="child") == MlxDevice(kind="metal", working_set_bytes=5)


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor : 0\nmodel name\t: A  Chip\nmodel name\t: Another\n", "A Chip"),
        ("processor : 0\nModel\t\t: Raspberry\n", "Raspberry"),
        ("", ""),
    ],
)
def test_the_chip_is_named_as_its_maker_does(tmp_path: Path, cpuinfo: str, name: str) -> None:
    """x86 and Arm have other words for it; without any it stays unnamed."""
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert chip_name(tmp_path / "cpuinfo") == name
    assert chip_name(tmp_path / "none") == ""


def test_this_machine_has_a_profile_and_no_engine_was_imported_for_it() -> None:
    """Versions come from what is installed, the device from a child."""
    profile = read_profile()
    assert profile.num_cores > 0
    assert profile.engines == installed_engines()
    assert profile.device in {"cpu", "cuda", "metal"}
    assert sys.modules["pensieve.devices.profile"].__dict__.get("mx") is None


def test_modules_of_the_folder_we_are_called_in_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People stand in a model's folder when they ask: what lies there is no code of ours."""
    for name in ("pensieve", "msgspec", "mlx"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    answer = ask_mlx()
    assert not (tmp_path / "ran").exists()
    assert isinstance(answer, MlxDevice) or "pensieve" not in answer.reason
