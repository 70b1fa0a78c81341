"""`pensieve config`: the settings in force and where each came from. Reads the sources, changes nothing."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from pensieve.cli.text import one_line
from pensieve.config.fields import FIELDS
from pensieve.config.settings import mask
from pensieve.config.sources import LoadedSettings, load
from pensieve.config.validation import display
from pensieve.messages import Json


@click.group()
def config() -> None:
    """Show the settings and where each one came from."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(as_json: bool) -> None:
    """Show every setting: its value and the source of the value."""
    loaded = load()
    click.echo(msgspec.json.format(msgspec.json.encode(_document(loaded))) if as_json else _page(loaded))


@config.command()
def path() -> None:
    """Print the path of the settings file, whether or not it exists."""
    click.echo(load().folders.config_file)


def _document(loaded: LoadedSettings) -> dict[str, Json]:
    file = loaded.folders.config_file
    return {
        "config_file": {"path": str(file), "exists": file.is_file()},
        "settings": [{"key": key, "value": _masked(loaded, key), "source": str(loaded.origins[key])} for key in FIELDS],
        "warnings": loaded.warnings,
    }


def _masked(loaded: LoadedSettings, key: str) -> Json:
    value = loaded.value(key)
    return mask(value) if FIELDS[key].is_secret and value is not None else value


def _page(loaded: LoadedSettings) -> str:
    rows = [("SETTING", "VALUE", "SOURCE")]
    rows += [(key, display(field, loaded.value(key)), str(loaded.origins[key])) for key, field in FIELDS.items()]
    lines = [*_columns(rows), "", _file_line(loaded.folders.config_file)]
    return "\n".join([*lines, *(f"warning: {one_line(warning)}" for warning in loaded.warnings)])


def _columns(rows: list[tuple[str, str, str]]) -> list[str]:
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in clean) for column in (0, 1)]
    return [f"{key:<{widths[0]}}  {value:<{widths[1]}}  {source}" for key, value, source in clean]


def _file_line(file: Path) -> str:
    return (
        f"settings file: {one_line(str(file))} ({'read' if file.is_file() else 'not there; make it to keep settings'})"
    )
