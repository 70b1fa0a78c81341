"""`pensieve models`: what is on this machine, and removing it. Reads manifests, never weights or networks."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.cli.convert import convert
from pensieve.cli.text import one_line
from pensieve.config.settings import Settings
from pensieve.errors import UsageError
from pensieve.inference.fitting import fit_of
from pensieve.inference.guard import MemoryGuard
from pensieve.models.catalog import CatalogEntry
from pensieve.models.registry import Entry, Registry
from pensieve.models.sizes import in_words
from pensieve.models.spec import ModelSpec

Cells = tuple[str, str, str, str, str]
HEAD: Final[Cells] = ("NAME", "WEIGHTS", "SIZE", "CONTEXT", "FIT")
NAME_WIDTH: Final = 15
"""So that a line has at most 60 columns."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the list, as `--json` prints it."""

    name: str
    state: str
    """`ready`; `damaged`, with the problem; `unfinished`: pulled in part; `available`: known by name, to be pulled."""
    format: str = ""
    size_bytes: int = 0
    quantization: str = ""
    context_tokens: int = 0
    origin: str = ""
    source: str = ""
    location: str = ""
    problem: str = ""
    fit: str = ""
    """`fits` into memory now; `tight`: with less context, or with other programs ended; `too big`; empty: unknown."""


class Fits:
    """Says of each model whether it fits into the memory of this moment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = MemoryGuard(settings.memory)
        self._guard.look()

    def __call__(self, spec: ModelSpec) -> str:
        """In a word, empty where nobody knows."""
        fit = fit_of(spec, self._settings, self._guard)
        return "" if fit == "unknown" else fit


@click.group()
def models() -> None:
    """List, convert or remove the models on this machine."""


models.add_command(convert)


@models.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """List the models that are here, and those that `pensieve pull` knows by name."""
    loaded = load_settings()
    rows = rows_of(Registry(loaded.folders.models), Fits(loaded.settings))
    click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode() if as_json else _page(rows))
    if not as_json and any(row.format == "mlx" for row in rows) and find_spec("mlx") is None:
        click.echo(
            "\nFIT is of memory alone. Models of MLX also need its\n"
            "engine, which is not installed: `make setup` adds it."
        )


@models.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(name: str, yes: bool) -> int:
    """Delete a model that `pull` or `convert` made, or what an interrupted pull left."""
    registry = Registry(load_settings().folders.models)
    if not yes and not _is_wanted(registry, name):
        click.echo("nothing was deleted", err=True)
        return 1
    freed_bytes = registry.remove(name)
    click.echo(f"{one_line(name)} is deleted: {in_words(freed_bytes)} freed")
    return 0


def rows_of(registry: Registry, fits: Fits) -> list[Row]:
    """Every model's row: those on disk by name, those half here, then the catalog's that are not."""
    entries, leftovers = registry.entries(), registry.all_leftovers()
    here = {entry.name for entry in entries} | {left.name for left in leftovers}
    return [
        *(_row(registry, entry, fits) for entry in entries),
        *(Row(name=left.name, state="unfinished", size_bytes=left.num_bytes, origin="pull") for left in leftovers),
        *(_available(known, fits) for known in registry.catalog if known.name not in here),
    ]


def _row(registry: Registry, entry: Entry, fits: Fits) -> Row:
    manifest = entry.manifest
    if manifest is None:
        location = str(registry.folder / entry.name)
        return Row(name=entry.name, state="damaged", problem=entry.problem, location=location)
    return Row(
        name=entry.name,
        state="ready",
        format=manifest.spec.format,
        size_bytes=manifest.num_bytes,
        quantization=manifest.spec.quantization,
        context_tokens=manifest.spec.context_tokens,
        origin=manifest.spec.origin,
        source=manifest.source,
        location=manifest.spec.location,
        fit=fits(manifest.spec),
    )


def _available(known: CatalogEntry, fits: Fits) -> Row:
    return Row(
        name=known.name,
        state="available",
        size_bytes=known.num_bytes,
        format=known.format,
        quantization=known.quantization,
        context_tokens=known.context_tokens,
        fit=fits(known.planned()),
    )


def _page(rows: list[Row]) -> str:
    here = [row for row in rows if row.state != "available"]
    known = [row for row in rows if row.state == "available"]
    cells = [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(HEAD, *cells, strict=True)]
    widths[0] = min(widths[0], NAME_WIDTH)
    lines = [_line(HEAD, widths), *(line for row in here for line in _lines(row, widths))]
    if known:
        title = "Not here yet; `pensieve pull NAME` fetches them:"
        listed = [_line(_cells(row), widths) for row in known]
        lines = [*lines, "", title, *listed] if here else [title, "", *lines, *listed]
    return "\n".join(lines)


def _lines(row: Row, widths: list[int]) -> list[str]:
    """A model's line, and under it what is wrong with it."""
    notes = {
        "damaged": f"damaged: {row.problem}",
        "unfinished": "unfinished: pull it again to go on, or remove it",
    }
    lines = [_line(_cells(row), widths)]
    return [*lines, f"  {one_line(notes[row.state])}"] if row.state in notes else lines


def _line(cells: Cells, widths: list[int]) -> str:
    """Columns for a narrow terminal: a name too long for its column has a line of its own."""
    name, weights, size, context, fit = cells
    facts = f"{weights:<{widths[1]}}  {size:>{widths[2]}}  {context:>{widths[3]}}  {fit}".rstrip()
    if len(name) <= widths[0]:
        return f"{name:<{widths[0]}}  {facts}"
    return f"{name}\n{'':<{widths[0]}}  {facts}"


def _cells(row: Row) -> Cells:
    weights = f"{row.format} {row.quantization}".strip() or "-"
    context = f"{row.context_tokens:,}" if row.context_tokens else "-"
    size = in_words(row.size_bytes) if row.size_bytes else "-"
    return one_line(row.name), one_line(weights), size, context, row.fit


def _is_wanted(registry: Registry, name: str) -> bool:
    """Ask, where there is something to delete."""
    entry = registry.entry(name)
    if entry is None and registry.leftovers(name) is None:
        return True  # the deletion says what is wrong
    what = entry.name if entry is not None else f"what an interrupted pull left of {one_line(name)}"
    if not sys.stdin.isatty():
        raise UsageError(f"deleting {what} asks first, and nobody is at a terminal to answer: say --yes")
    size = f" ({in_words(entry.manifest.num_bytes)})" if entry is not None and entry.manifest is not None else ""
    return click.confirm(f"Delete {what}{size}?", err=True)
