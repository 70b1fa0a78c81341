"""What the tests of whole servers share: where the server of a module listens, a client of it, and the MLX model."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import pytest

from served import MLX_NAME, run, url_of


@pytest.fixture(scope="session")
def mlx_home(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the starter model and, beside it, what `pensieve models convert` made of it."""
    home = tmp_path_factory.mktemp("mlx") / "home"
    pulled = home / "data" / "models" / starter_model.parent.name
    shutil.copytree(starter_model.parent, pulled, copy_function=os.symlink)
    run(home, "models", "convert", pulled.name, "--out", MLX_NAME, "--no-check")
    return home


@pytest.fixture(scope="module")
def url(server: subprocess.Popen[str]) -> str:
    """Where the module's own `server` listens."""
    return url_of(server)


@pytest.fixture
async def client(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The SDK as its users make it."""
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0, timeout=120) as made:
        yield made
