"""Where things are kept, and who may look."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pensieve.config.folders import folders, prepare
from pensieve.config.settings import Folders
from pensieve.config.sources import load
from pensieve.errors import ConfigurationError

from .conftest import Sources


def mode(folder: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(folder.stat().st_mode)


def test_home_moves_everything(tmp_path: Path) -> None:
    """Every path of ours lies beneath PENSIEVE_HOME."""
    ours = folders({"PENSIEVE_HOME": str(tmp_path)})
    everything = (ours.config, ours.data, ours.state, ours.config_file, ours.models, ours.run_file)
    assert all(path.is_relative_to(tmp_path) for path in everything)
    assert ours.config_file == tmp_path / "config.toml"


@pytest.mark.parametrize("environ", [{}, {"PENSIEVE_HOME": ""}])
def test_without_a_home_the_systems_folders_are_used(environ: dict[str, str]) -> None:
    """An empty PENSIEVE_HOME is none: it must not mean the working directory."""
    ours = folders(environ)
    assert all(path.name == "pensieve" and path.is_absolute() for path in (ours.config, ours.data, ours.state))


def test_home_may_stand_in_dotenv_and_the_environment_wins(sources: Sources, tmp_path: Path) -> None:
    """The settings file is looked for where the winner says."""
    sources.write_dotenv(f"PENSIEVE_HOME={tmp_path}/other\n")
    assert load(environ={}, cwd=sources.work).folders.config == tmp_path / "other"
    assert sources.load().folders.config == sources.home


def test_a_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path of the person's is meant from where they are, and ~ is their home."""
    monkeypatch.chdir(tmp_path)
    assert folders({"PENSIEVE_HOME": "here"}).config == tmp_path / "here"
    assert folders({"PENSIEVE_HOME": "~/here"}).config == Path.home() / "here"


@pytest.mark.parametrize("home", ["~nobody-of-that-name/x", "\udcff"])
def test_a_home_that_is_no_path_is_refused(home: str) -> None:
    """The variable is named."""
    with pytest.raises(ConfigurationError, match=r"PENSIEVE_HOME .* is not accepted"):
        folders({"PENSIEVE_HOME": home})


def test_new_folders_are_their_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, and however deep."""
    before = os.umask(0)
    try:
        ours = folders({"PENSIEVE_HOME": str(tmp_path / "a" / "b")})
        prepare(ours)
    finally:
        os.umask(before)
    assert [mode(folder) for folder in (ours.config, ours.data, ours.state)] == [0o700] * 3


def test_loose_data_and_state_folders_are_closed(tmp_path: Path) -> None:
    """The config folder stays as it was: with PENSIEVE_HOME it may be any folder of the person's."""
    ours = folders({"PENSIEVE_HOME": str(tmp_path)})
    tmp_path.chmod(0o755)
    for folder in (ours.data, ours.state):
        folder.mkdir()
        folder.chmod(0o755)
    prepare(ours)
    assert [mode(folder) for folder in (ours.config, ours.data, ours.state)] == [0o755, 0o700, 0o700]


@pytest.mark.parametrize("exists", [False, True])
def test_models_are_closed_where_all_folders_are_one(tmp_path: Path, exists: bool) -> None:
    """As on macOS, where the shared folder counts as config and is left as it was."""
    ours = Folders(config=tmp_path, data=tmp_path, state=tmp_path)
    tmp_path.chmod(0o755)
    if exists:
        ours.models.mkdir()
        ours.models.chmod(0o755)
    prepare(ours)
    assert [mode(folder) for folder in (ours.config, ours.models)] == [0o755, 0o700]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    """Here a file stands in its way."""
    (tmp_path / "home").write_text("")
    with pytest.raises(ConfigurationError, match="set PENSIEVE_HOME to a folder you can write to"):
        prepare(folders({"PENSIEVE_HOME": str(tmp_path / "home")}))
