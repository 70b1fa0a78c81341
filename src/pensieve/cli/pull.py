"""`pensieve pull`: fetch a model, and show how far it is. Decides nothing about where models come from."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from pensieve.cli.context import load_settings
from pensieve.cli.text import one_line
from pensieve.config.settings import Settings
from pensieve.inference.fitting import why_not
from pensieve.inference.guard import MemoryGuard
from pensieve.models.catalog import entry_named
from pensieve.models.download import PulledFormat
from pensieve.models.download import pull as fetch
from pensieve.models.progress import Progress
from pensieve.models.registry import Registry
from pensieve.models.sizes import in_words
from pensieve.models.spec import ModelSpec

LINE_SECONDS = 5.0
"""Between two lines of the same stage where there is no terminal to draw on."""


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Fetch again what is here already.")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["gguf", "mlx"]),
    help="Which to take of a repository that has both: a GGUF file, or safetensors for MLX.",
)
def pull(name: str, force: bool, wanted: PulledFormat | None) -> None:
    """Fetch a model onto this machine.

    NAME is a name from `pensieve models list`, or a model on the Hugging Face hub: owner/repo, and for GGUF also
    owner/repo:Q4_K_M and owner/repo/file.gguf.
    """
    loaded = load_settings()
    registry = Registry(loaded.folders.models)
    known = entry_named(name, registry.catalog)
    if known is not None:
        _warn_if_too_big(known.planned(), loaded.settings)
    try:
        with shown_progress() as progress:
            spec = fetch(name, registry, progress, is_forced=force, wanted=wanted)
    except KeyboardInterrupt:
        click.echo("stopped; pull again to go on", err=True)
        raise click.Abort from None
    click.echo(f"{one_line(spec.name)} is ready: {', '.join(facts_of(spec))}")
    if known is None:
        _warn_if_too_big(spec, loaded.settings)


def _warn_if_too_big(spec: ModelSpec, settings: Settings) -> None:
    """Say so where this machine cannot run the model now; fetching it is still up to the person."""
    guard = MemoryGuard(settings.memory)
    guard.look()
    problem = why_not(spec, settings, guard)
    if problem is not None:
        click.echo(f"warning: {one_line(str(problem))}", err=True)


def facts_of(spec: ModelSpec) -> list[str]:
    """What there is to say of a model, in words: size, quantization, context."""
    facts = [f"{in_words(spec.weight_bytes)} of weights"]
    if spec.quantization:
        facts.append(spec.quantization)
    if spec.context_tokens:
        facts.append(f"context {spec.context_tokens:,} tokens")
    return facts


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Progress on standard error: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True)
    with Bars(
        *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        yield Drawn(bars)


class Drawn:
    """Progress as one bar for each stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage = ""
        self._task = bars.add_task("starting", total=None)

    def __call__(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        """See `Progress`."""
        if stage != self._stage:
            self._stage = stage
            self._bars.reset(self._task, description=stage)
        self._bars.update(self._task, completed=done_bytes, total=total_bytes or None)


class Lines:
    """Progress as plain lines: one when a stage begins, then one every few seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._said_at = 0.0

    def __call__(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        """See `Progress`."""
        now = time.monotonic()
        if stage == self._stage and now - self._said_at < LINE_SECONDS:
            return
        self._stage, self._said_at = stage, now
        of = f" of {in_words(total_bytes)}" if total_bytes else ""
        click.echo(f"{stage}: {in_words(done_bytes)}{of}", err=True)
