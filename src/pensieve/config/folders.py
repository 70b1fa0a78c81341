"""Where the program keeps its things, and making those folders. Knows nothing of what is kept in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from pensieve.config.settings import Folders
from pensieve.errors import ConfigurationError

HOME_VARIABLE = "PENSIEVE_HOME"
_SOURCE = "the environment or .env"
_OWNER_ONLY = 0o700


def folders(environ: Mapping[str, str]) -> Folders:
    """The program's folders: all beneath PENSIEVE_HOME when that is set, else where the system keeps such things."""
    home = environ.get(HOME_VARIABLE)
    if home:
        root = _absolute(home)
        return Folders(config=root, data=root / "data", state=root / "state")
    return Folders(
        config=platformdirs.user_config_path("pensieve", appauthor=False),
        data=platformdirs.user_data_path("pensieve", appauthor=False),
        state=platformdirs.user_state_path("pensieve", appauthor=False),
    )


def prepare(folders: Folders) -> None:
    """Make the folders that are missing, for their owner only, and close data, state and models to everyone else.

    A config folder that exists is left as it is: with PENSIEVE_HOME it may be any folder of the user's. Models are
    closed for themselves, because on macOS config, data and state are one folder.
    """
    for folder in (folders.config, folders.data, folders.state, folders.models):
        try:
            folder.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
            if folder != folders.config:
                _close_to_others(folder)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {folder} cannot be used ({error.strerror}): "
                f"set {HOME_VARIABLE} to a folder you can write to"
            ) from error


def _absolute(home: str) -> Path:
    try:
        home.encode()
        return Path(home).expanduser().absolute()
    except (OSError, RuntimeError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"{home!r} is not accepted: the path of a folder", HOME_VARIABLE, _SOURCE) from error


def _close_to_others(folder: Path) -> None:
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.getuid() and mode & ~_OWNER_ONLY:
        folder.chmod(mode & _OWNER_ONLY)
