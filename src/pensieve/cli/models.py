"""`pensieve models`: what is on this machine, and removing it. Reads manifests, never weights or networks."""

from __future__ import annotations

import sys

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.cli.text import one_line
from pensieve.errors import UsageError
from pensieve.models.catalog import CatalogEntry
from pensieve.models.registry import Entry, Registry
from pensieve.models.sizes import in_words


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the list, as `--json` prints it."""

    name: str
    state: str
    """`ready`; `damaged`, with the problem; or `available`: known by name, to be pulled."""
    format: str = ""
    size_bytes: int = 0
    quantization: str = ""
    context_tokens: int = 0
    origin: str = ""
    source: str = ""
    location: str = ""
    problem: str = ""


@click.group()
def models() -> None:
    """List the models on this machine, or remove one."""


@models.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """List the models that are here, and those that `pensieve pull` knows by name."""
    rows = rows_of(Registry(load_settings().folders.models))
    click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode() if as_json else _page(rows))


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


def rows_of(registry: Registry) -> list[Row]:
    """Every model's row: those on disk by name, then the catalog's that are not."""
    entries = registry.entries()
    here = {entry.name for entry in entries}
    return [
        *(_row(registry, entry) for entry in entries),
        *(_available(known) for known in registry.catalog if known.name not in here),
    ]


def _row(registry: Registry, entry: Entry) -> Row:
    manifest = entry.manifest
    if manifest is None:
        location = str(registry.folder / entry.name)
        return Row(name=entry.name, state="damaged", problem=entry.problem, location=location)
    return Row(
        name=entry.name,
        state="ready",
        size_bytes=manifest.num_bytes,
        quantization=manifest.spec.quantization,
        context_tokens=manifest.spec.context_tokens,
        origin=manifest.spec.origin,
        source=manifest.source,
        location=manifest.spec.location,
    )


def _available(known: CatalogEntry) -> Row:
    return Row(
        name=known.name,
        state="available",
        size_bytes=known.num_bytes,
        format=known.format,
        quantization=known.quantization,
        context_tokens=known.context_tokens,
    )


def _page(rows: list[Row]) -> str:
    cells = [("NAME", "SIZE", "QUANTIZATION", "CONTEXT", "ORIGIN"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    origins = {"damaged": f"damaged: {row.problem}", "available": f"not here: pensieve pull {row.name}"}
    context = f"{row.context_tokens:,}" if row.context_tokens else "-"
    size = in_words(row.size_bytes) if row.size_bytes else "-"
    cells = row.name, size, row.quantization or "-", context, origins.get(row.state, row.origin)
    return tuple(map(one_line, cells))  # type: ignore[return-value]  # five in, five out


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
