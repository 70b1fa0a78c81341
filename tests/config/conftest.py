"""What the tests of the settings share: a folder with every source in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pensieve.config.sources import LoadedSettings, load


class Sources:
    """A home and a working directory; only what a test writes there, and the variables it passes, are read."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.work = root / "work"
        self.home.mkdir(mode=0o700)
        self.work.mkdir()

    @property
    def config_file(self) -> Path:
        """The settings file of this home."""
        return self.home / "config.toml"

    def write_file(self, text: str) -> None:
        """Write the settings file, for its owner only."""
        self.config_file.write_text(text)
        self.config_file.chmod(0o600)

    def write_dotenv(self, text: str) -> None:
        """Write `.env` in the working directory."""
        (self.work / ".env").write_text(text)

    def load(self, flags: Mapping[str, object] | None = None, /, **environ: str) -> LoadedSettings:
        """Load the settings with these flags and variables."""
        return load(flags, environ={"PENSIEVE_HOME": str(self.home), **environ}, cwd=self.work)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Empty sources."""
    return Sources(tmp_path)
