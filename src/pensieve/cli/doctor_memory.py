"""`pensieve doctor memory`: how much memory there is, which level holds, and what the running server holds of it."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.config.settings import MemorySettings
from pensieve.devices.cuda import DeviceMemory, read_devices
from pensieve.devices.levels import MEASURES, Level, Thresholds
from pensieve.devices.memory import MemoryReading
from pensieve.errors import PensieveError
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.server_client import fetch, find_server
from pensieve.messages import Json
from pensieve.models.sizes import gigabytes


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known; every field is part of the documented JSON."""

    level: Level
    reading: MemoryReading
    thresholds: Thresholds
    """Where the levels begin on this machine, in bytes."""
    cards: tuple[DeviceMemory, ...]
    spare_bytes: int | None
    """What a model may take: what is available, less the threshold of Critical."""
    server: dict[str, Json] | None
    """What /health of the running server says; null where none of yours runs."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def memory(as_json: bool) -> None:
    """Show the memory of this machine, the level it is at, and what the running server holds."""
    loaded = load_settings()
    server = find_server(loaded.folders)
    health = None if server is None else _health(server.url)
    report = examine(loaded.settings.memory, read_devices(), health)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        click.echo("\n".join(page(report)))


def examine(settings: MemorySettings, cards: tuple[DeviceMemory, ...], health: dict[str, Json] | None) -> Report:
    """Look at this machine's memory."""
    guard = MemoryGuard(settings)
    level = guard.look()
    return Report(
        level=level,
        reading=guard.reading,
        thresholds=guard.thresholds,
        cards=cards,
        spare_bytes=guard.spare_bytes(is_safe=False),
        server=health,
    )


def page(report: Report) -> Iterator[str]:
    """The report in lines."""
    reading, limits = report.reading, report.thresholds
    yield f"level      {report.level}: {_asked(report.level)}"
    yield f"available  {_size(reading.available_bytes)} of {_size(reading.total_bytes)}"
    if reading.limited_by:
        yield f"           limited by {reading.limited_by}"
    begins = ", ".join(
        f"{name} {gigabytes(num_bytes)}"
        for name, num_bytes in (
            ("Warning", limits.warning_bytes),
            ("Critical", limits.critical_bytes),
            ("Emergency", limits.emergency_bytes),
        )
    )
    yield f"below      {begins}"
    if report.spare_bytes is not None:
        yield f"models     may take {gigabytes(max(0, report.spare_bytes))}, so that Critical is not reached"
    if reading.swap_total_bytes:
        yield f"swap       {_size(reading.swap_used_bytes)} of {_size(reading.swap_total_bytes)} used"
    if reading.stalled_percent is not None:
        yield f"stalls     {reading.stalled_percent:g} % of the last ten seconds were lost to waiting for memory"
    for card in report.cards:
        yield f"card       {card.name}: {gigabytes(card.free_bytes)} of {gigabytes(card.total_bytes)} free"
    yield from _server(report.server)


def _server(health: dict[str, Json] | None) -> Iterator[str]:
    if health is None:
        yield "server     none of yours is running"
        return
    model, worker = health.get("model") or {}, health.get("worker") or {}
    held = worker.get("memory_gb")
    yield f"server     {health.get('status')}; {model.get('name')} is {model.get('state')}" + (
        f", its worker holds {held} GB" if held else ""
    )
    counts = [
        f"{name} {worker[name]}" for name in ("loads", "crashes", "hangs", "unloads", "outgrown") if name in worker
    ]
    if counts:
        yield f"           {', '.join(counts)}"
    event = health.get("last_event")
    if event:
        yield f"last       {event['what']}, {event['seconds_ago']} s ago"


def _asked(level: Level) -> str:
    measures = MEASURES[level]
    if level == "Unknown":
        return "this machine's memory cannot be read, and is left alone"
    if measures.is_unloaded:
        return "no model is held in memory, requests are refused"
    if not measures.is_accepting:
        return "new requests are refused, caches are emptied"
    return "caches shrink" if measures.cache_share < 1.0 else "nothing is asked for"


def _health(url: str) -> dict[str, Json] | None:
    try:
        return msgspec.json.decode(fetch(url, "/health"), type=dict[str, Json])
    except (PensieveError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _size(num_bytes: int | None) -> str:
    return "unknown" if num_bytes is None else gigabytes(num_bytes)
