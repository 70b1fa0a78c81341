"""What every command begins with: the settings, with its own flags on top, and folders that exist.

Knows no command and no backend.
"""

from __future__ import annotations

from collections.abc import Mapping

from pensieve.cli.failures import say_warning
from pensieve.config.folders import prepare
from pensieve.config.sources import LoadedSettings, load


def load_settings(flags: Mapping[str, object] | None = None) -> LoadedSettings:
    """Load the settings, say their warnings on standard error, and make the program's folders.

    `flags` maps dotted keys (`server.port`) to values; None means that the flag was not given.
    """
    loaded = load(flags)
    for warning in loaded.warnings:
        say_warning(warning)
    prepare(loaded.folders)
    return loaded
