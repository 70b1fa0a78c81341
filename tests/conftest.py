"""Fixtures every test may use: a home of its own, the starter model, and an event loop that must not be blocked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

REPOSITORY = Path(__file__).parent.parent
CACHE_HOME = REPOSITORY / ".cache" / "pensieve"

# How long an example takes says something of the machine's load, and nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def unblocked_event_loop() -> Iterator[None]:
    """A blocking call made by our code on a running event loop fails the test."""
    with blockbuster_ctx("pensieve"):
        yield


@pytest.fixture
def pensieve_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for the program's data; no variable or `.env` of the developer's own reaches the test."""
    for name in [name for name in os.environ if name.startswith("PENSIEVE_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("PENSIEVE_HOME", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model's GGUF file, pulled once into the repository's ignored `.cache` folder."""
    command = [sys.executable, "-m", "pensieve", "pull", "smollm2-135m"]
    environment = os.environ | {"PENSIEVE_HOME": str(CACHE_HOME)}
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL, timeout=900)
    return CACHE_HOME / "data" / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def starter_home(pensieve_home: Path, starter_model: Path) -> Path:
    """A home in which the starter model has been pulled."""
    pulled = pensieve_home / "data" / "models" / starter_model.parent.name
    shutil.copytree(starter_model.parent, pulled, copy_function=os.symlink)
    return pensieve_home
