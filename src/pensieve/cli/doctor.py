"""`pensieve doctor`: what this machine can run, on one page or as JSON. Finds nothing itself; `checkup` does."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator

import click
import msgspec

from pensieve.cli.checkup import ModelFacts, Report, examine
from pensieve.cli.doctor_cache import cache
from pensieve.cli.doctor_memory import memory
from pensieve.cli.text import one_line
from pensieve.models.sizes import in_words

NARROW, WIDE = 60, 100
_LABEL = 10


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> int:
    """Show what this machine is, which models fit, and what is wrong.

    Ends with 1 where nothing can run.
    """
    if context.invoked_subcommand is not None:
        return 0
    report = examine()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        width = max(NARROW, min(shutil.get_terminal_size((80, 24)).columns, WIDE))
        click.echo("\n".join(page(report, width)))
    return 0 if report.is_usable else 1


doctor.add_command(cache)
doctor.add_command(memory)


def page(report: Report, width: int) -> Iterator[str]:
    """The report in lines of at most `width` characters, model names aside."""
    yield from _machine(report, width)
    yield ""
    yield from _models(report.models, width)
    yield ""
    if not report.problems:
        yield "No problems."
    for problem in report.problems:
        yield from _wrapped(f"! {one_line(problem.problem)}", width, "  ")
        yield from _wrapped(f"  -> {one_line(problem.next_step)}", width, "     ")
    if not report.is_usable:
        yield "Nothing can run here until that is put right."


def _machine(report: Report, width: int) -> Iterator[str]:
    machine, memory, device = report.machine, report.memory, report.device
    rows = [
        ("chip", f"{machine.chip or 'unknown'}, {machine.num_cores} cores, {machine.architecture}"),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("memory", f"{_size(memory.available_bytes)} free of {_size(memory.total_bytes)}: {memory.status}"),
    ]
    if memory.limited_by:
        rows.append(("", f"limited by {memory.limited_by}"))
    working_set = f", working set {in_words(device.working_set_bytes)}" if device.working_set_bytes else ""
    rows.append(("device", f"{device.kind} ({device.name or 'unnamed'}){working_set}"))
    rows += [
        ("card", f"{card.name}: {_size(card.free_bytes)} free of {_size(card.total_bytes)}") for card in report.cards
    ]
    for engine in report.engines:
        rows.append((engine.name, " - ".join(part for part in (engine.version, engine.problem) if part)))
        if engine.next_step:
            rows.append(("", f"to add it: {engine.next_step}"))
    for label, text in rows:
        yield from _wrapped(f"{label:<{_LABEL}} {one_line(text)}", width, " " * (_LABEL + 1))


def _models(models: tuple[ModelFacts, ...], width: int) -> Iterator[str]:
    yield f"{'FIT':<9} {'WEIGHTS':>9} {'CACHE':>10} {'NEEDS':>9}  MODEL"
    for model in models:
        about = "~" if model.is_cache_estimated else ""
        sizes = in_words(model.weight_bytes), about + in_words(model.cache_bytes), in_words(model.needed_bytes)
        mark = "" if model.state == "here" else " *"
        yield f"{model.fit:<9} {sizes[0]:>9} {sizes[1]:>10} {sizes[2]:>9}  {one_line(model.name)}{mark}"
        if model.fit == "tight" and model.max_context_tokens:
            yield f"          up to {model.max_context_tokens:,} tokens of context now"
    rooms: dict[tuple[int | None, int | None], set[str]] = {}
    for model in models:
        rooms.setdefault((model.available_bytes, model.total_bytes), set()).add(model.engine)
    for (available, total), engines in rooms.items():
        whose = " and ".join(sorted(engines))
        text = f"{whose} can have {_size(available)} now, {_size(total)} with nothing else running."
        yield from _wrapped(text, width, "")
    yield from _wrapped(
        "NEEDS: weights, cache for the context a model is loaded with, scratch and reserve."
        " ~ estimated. * not here: `pensieve pull NAME` fetches it.",
        width,
        "",
    )


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _size(num_bytes: int | None) -> str:
    return "unknown" if num_bytes is None else in_words(num_bytes)
