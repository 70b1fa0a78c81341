"""The settings of this run: defaults < config.toml < .env < environment < flags, each value with its origin.

A wrong value is refused even where a stronger source hides it. Knows nothing of what the settings are for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pensieve.config.environment import dotenv_variables, environment_variables, read_variables
from pensieve.config.fields import FIELDS
from pensieve.config.file import read_file
from pensieve.config.folders import folders
from pensieve.config.layers import Given, Layer, Origin
from pensieve.config.settings import Folders, Settings
from pensieve.config.validation import parse, validate
from pensieve.messages import Json

__all__ = ["LoadedSettings", "Origin", "folders", "load"]


class LoadedSettings(msgspec.Struct, frozen=True):
    """The settings, where each came from, and what a person should know about their sources."""

    settings: Settings
    folders: Folders
    origins: Mapping[str, Origin]
    """By dotted key, for every setting."""
    warnings: tuple[str, ...] = ()

    def value(self, key: str) -> Json:
        """The value of the setting with that dotted key."""
        section, _, name = key.partition(".")
        return getattr(getattr(self.settings, section), name)


def load(
    flags: Mapping[str, object] | None = None, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None
) -> LoadedSettings:
    """Read every source; `flags` maps dotted keys to values, None where a flag was not given.

    Raises `ConfigurationError` with the key, the source and what is accepted.
    """
    from_dotenv, dotenv_warnings = dotenv_variables((cwd or Path()) / ".env")
    from_environment = environment_variables(environ)
    ours = folders({name: text for name, (text, _) in {**from_dotenv, **from_environment}.items()})
    layers = (
        read_file(ours.config_file),
        Layer(warnings=dotenv_warnings),
        read_variables(from_dotenv),
        read_variables(from_environment),
        _read_flags(flags or {}),
    )
    return _merge(layers, ours)


def _read_flags(flags: Mapping[str, object]) -> Layer:
    given = []
    for key, value in flags.items():
        field = FIELDS[key]
        if value is not None:
            parsed = parse(field, value) if isinstance(value, str) and value else value
            given.append(Given(key, validate(field, parsed, field.flag), Origin("flag", field.flag)))
    return Layer(tuple(given))


def _merge(layers: tuple[Layer, ...], ours: Folders) -> LoadedSettings:
    sections: dict[str, dict[str, Json]] = {}
    origins = dict.fromkeys(FIELDS, Origin("default"))
    for each in (each for layer in layers for each in layer.given):
        section, _, name = each.key.partition(".")
        sections.setdefault(section, {})[name] = each.value
        origins[each.key] = each.origin
    settings = msgspec.convert(sections, type=Settings)
    return LoadedSettings(settings, ours, origins, tuple(warning for layer in layers for warning in layer.warnings))
