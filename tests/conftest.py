"""Fixtures every test may use: a home of its own, the starter model, and an event loop that must not be blocked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

REPOSITORY = Path(__file__).parent.parent
CACHE_HOME = REPOSITORY / ".cache" / "pensieve"
STARTER_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(autouse=True)
def unblocked_event_loop() -> Iterator[None]:
    """A blocking call made by our code on a running event loop fails the test."""
    with blockbuster_ctx("pensieve"):
        yield


@pytest.fixture
def pensieve_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for the program's data; no setting of the developer's own reaches the test."""
    for name in [name for name in os.environ if name.startswith("PENSIEVE_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("PENSIEVE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model's GGUF file, pulled once into the repository's ignored `.cache` folder."""
    found = next(CACHE_HOME.rglob(STARTER_FILE), None)
    if found is None:
        command = [sys.executable, "-m", "pensieve", "pull", "smollm2-135m"]
        subprocess.run(command, check=True, env=os.environ | {"PENSIEVE_HOME": str(CACHE_HOME)}, timeout=900)
        found = next(CACHE_HOME.rglob(STARTER_FILE))
    return found
