"""Settings out of the user's TOML file. Knows nothing of other sources."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pensieve.config.fields import FIELDS, SECTIONS, nearest_key
from pensieve.config.layers import Given, Layer, Origin
from pensieve.config.validation import validate
from pensieve.errors import ConfigurationError
from pensieve.messages import Json

_READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


def read_file(file: Path) -> Layer:
    """The settings in the file, none if there is no file; raises `ConfigurationError` for anything not understood."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        mode = file.stat().st_mode
    except FileNotFoundError:
        return Layer()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    given = tuple(_settings(_decode(text, file), file))
    return Layer(given, _warnings(given, file, mode))


def _decode(text: str, file: Path) -> dict[str, Json]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # tomllib names the line: "Invalid value (at line 3, column 8)".
        raise ConfigurationError(f"{file} is not TOML: {error}") from error


def _settings(document: dict[str, Json], file: Path) -> Iterator[Given]:
    for section, table in document.items():
        if section not in SECTIONS:
            raise _unknown(section, file)
        if not isinstance(table, dict):
            raise ConfigurationError(f"is not accepted as a value: a table, [{section}]", section, str(file))
        for name, value in table.items():
            yield _setting(f"{section}.{name}", value, file)


def _setting(key: str, value: Json, file: Path) -> Given:
    field = FIELDS.get(key)
    if field is None:
        raise _unknown(key, file)
    return Given(key, validate(field, value, str(file)), Origin("file", str(file)))


def _unknown(key: str, file: Path) -> ConfigurationError:
    nearest = nearest_key(key)
    hint = f"did you mean {nearest}?" if nearest else "`pensieve config show` lists the settings"
    return ConfigurationError(f"is not a setting: {hint}", key, str(file))


def _warnings(given: tuple[Given, ...], file: Path, mode: int) -> tuple[str, ...]:
    holds_secret = any(FIELDS[each.key].is_secret and each.value is not None for each in given)
    if holds_secret and mode & _READABLE_BY_OTHERS:
        return (f"{file} holds a key and can be read by others: chmod 600 {file}",)
    return ()
