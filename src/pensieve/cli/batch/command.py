"""The command: files, a backend, and a bar that tells how far it is. What a stopped run has done is not done again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pensieve.cli.backend import Place, choose, open_backend
from pensieve.cli.batch.lines import Job, Unclear, digest_of, understand
from pensieve.cli.batch.output import Output, each_line
from pensieve.cli.batch.work import work
from pensieve.cli.context import load_settings
from pensieve.cli.failures import INTERRUPTED_STATUS
from pensieve.cli.progress import Progress
from pensieve.cli.recipe import Recipe
from pensieve.config.settings import Settings
from pensieve.errors import PensieveError, UsageError

MOST_AT_ONCE = 16
SETTINGS = {
    "model": "model.name",
    "system": "generation.system",
    "temperature": "generation.temperature",
    "max_tokens": "generation.max_tokens",
}


@click.command()
@click.argument("source", metavar="IN.jsonl", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="OUT.jsonl", type=click.Path(path_type=Path), help="Where answers go.")
@click.option("--model", help="A model's name, or the path of a GGUF file or of a folder of safetensors.")
@click.option("--system", help="What the model is told before each prompt that says nothing itself.")
@click.option("--temperature", help="For prompts; 0 is always the likeliest word.")
@click.option("--max-tokens", help="Longest answer, in tokens, where a line says nothing.")
@click.option("--parallel", type=click.IntRange(1, 256), help="Lines under way at once; as many as the engine takes.")
@click.option("--retry-errors", is_flag=True, help="Ask lines again that got an error in an earlier run.")
def batch(source: Path, out: Path, parallel: int | None, retry_errors: bool, **flags: str | None) -> int:
    """Answer every line of a file of JSON, each with one line of OUT.jsonl.

    A line is {"prompt": "..."}, or a body of the Messages API, alone or as {"custom_id": ..., "params": {...}}. Say the
    same again after a stop, and it goes on. When all is done, the lines are in the order of the input.
    """
    loaded = load_settings({key: flags[name] for name, key in SETTINGS.items()})
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError("the answers cannot go into the file they answer: name another one for --out")
    with Progress() as progress:
        place = choose(loaded.settings, loaded.folders, progress.tell)
    recipe = Recipe.of(loaded.settings.generation, place.model)
    with Output(out) as output:
        if retry_errors:
            output.forget_errors()
        todo = _todo(source, output)
        try:
            with Told(len(todo), output) as told:
                jobs = _jobs(source, todo, recipe)
                at_once = parallel or _places(place, loaded.settings)
                asyncio.run(_work(jobs, place, loaded.settings, told, at_once))
        except (KeyboardInterrupt, PensieveError) as stopped:
            click.echo(f"stopped: {output.num_lines} lines are done, and the same command goes on from there", err=True)
            if isinstance(stopped, PensieveError):
                raise
            return INTERRUPTED_STATUS
        output.sort()
        return _summary(output, out)


class Told:
    """Keeps each line and tells how far it is: a bar on a terminal, nothing in a pipe."""

    def __init__(self, num_todo: int, output: Output) -> None:
        self._output = output
        self._bars = Bars(
            TextColumn("{task.fields[tokens]} tokens, {task.fields[errors]} errors"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
        )
        self._tokens = 0
        self._bar = self._bars.add_task("", total=num_todo, tokens=0, errors=output.num_errors, rate="")
        self._stack = ExitStack()

    def __enter__(self) -> Told:
        self._stack.enter_context(self._bars)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def keep(self, line: bytes, num_tokens: int) -> None:
        """Write the line, and count it."""
        self._output.add(line)
        self._tokens += num_tokens
        seconds = self._bars.tasks[0].elapsed or 0.0
        rate = f"{self._tokens / seconds:.0f} tok/s" if seconds > 1.0 else ""
        errors = self._output.num_errors
        self._bars.update(self._bar, advance=1, tokens=f"{self._tokens:,}", errors=errors, rate=rate)


async def _work(jobs: Iterator[Job | Unclear], place: Place, settings: Settings, told: Told, num_at_once: int) -> None:
    async with open_backend(place, settings) as backend:
        try:
            await work(jobs, backend, told.keep, num_at_once)
        except* PensieveError as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None


def _todo(source: Path, output: Output) -> frozenset[int]:
    """The lines that have no answer yet."""
    found: list[int] = []

    def take(number: int, content: bytes) -> None:
        if not output.has(number, digest_of(content)):
            found.append(number)

    each_line(source, take)
    return frozenset(found)


def _jobs(source: Path, todo: frozenset[int], recipe: Recipe) -> Iterator[Job | Unclear]:
    """One after another as they are asked for: the file may be larger than memory."""
    with source.open("rb") as file:
        for number, content in enumerate(file, 1):
            if number in todo:
                yield understand(number, content, recipe)


def _places(place: Place, settings: Settings) -> int:
    """What the engine answers at once; of a server nobody knows, and it has other clients."""
    if place.spec is None:
        return 4
    is_mlx = place.spec.format == "mlx"
    return min(MOST_AT_ONCE, settings.mlx.parallel if is_mlx else settings.llamacpp.parallel)


def _summary(output: Output, out: Path) -> int:
    errors = f", {output.num_errors} of them errors (--retry-errors asks those again)" if output.num_errors else ""
    click.echo(f"{out} has {output.num_lines} lines{errors}.", err=True)
    return 1 if output.num_errors else 0
