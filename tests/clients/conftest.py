"""The starter model in the MLX engine's form, behind the real server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MLX_NAME = "smollm2-135m-mlx"


@pytest.fixture(scope="session")
def mlx_home(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the starter model and, beside it, what `pensieve models convert` made of it."""
    home = tmp_path_factory.mktemp("mlx") / "home"
    pulled = home / "data" / "models" / starter_model.parent.name
    shutil.copytree(starter_model.parent, pulled, copy_function=os.symlink)
    run(home, "models", "convert", pulled.name, "--out", MLX_NAME, "--no-check")
    return home


@pytest.fixture(scope="module")
def mlx_server(mlx_home: Path) -> Iterator[subprocess.Popen[str]]:
    """`pensieve serve` with the converted model, in a process of its own; its log has no traceback and no prompt."""
    with subprocess.Popen(
        command("serve", "--port", "0", "--model", MLX_NAME),
        env=variables(mlx_home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in log
        assert "capital" not in log, "prompt text is not for logs"


def run(home: Path, *words: str) -> str:
    """What a command of ours prints in that home."""
    done = subprocess.run(
        command(*words),
        check=True,
        env=variables(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return done.stdout


def command(*words: str) -> list[str]:
    """One of our commands as a process is started with it."""
    return [sys.executable, "-m", "pensieve", *words]


def variables(home: Path) -> dict[str, str]:
    """The environment with that home, and nothing of the developer's own settings."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PENSIEVE_")}
    return others | {"PENSIEVE_HOME": str(home)}
