"""`pensieve models convert`: a model in another form, for the MLX engine.

Shows how far it is, and puts the result in place; what computes runs in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import get_args

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.cli.failures import say_warning
from pensieve.cli.pull import facts_of, shown_progress
from pensieve.cli.text import one_line
from pensieve.errors import UsageError
from pensieve.inference.conversion import Bits, Dtype, Finished, Job
from pensieve.inference.conversion import convert as run_job
from pensieve.models.catalog import entry_named
from pensieve.models.folders import read_folder
from pensieve.models.manifest import MANIFEST_NAME, Manifest, is_safe_name
from pensieve.models.progress import Progress
from pensieve.models.registry import Registry, expanded, looks_like_path
from pensieve.models.sizes import in_words
from pensieve.models.spec import ModelSpec
from pensieve.models.staging import STAGING_NAME, checked, discard, install, staged


@click.command()
@click.argument("source", metavar="SRC")
@click.option("--out", required=True, metavar="NAME_OR_FOLDER", help="A name for the new model, or a folder for it.")
@click.option(
    "--bits",
    type=click.Choice(get_args(Bits)),
    default="keep",
    show_default=True,
    help="Bits of a weight; `none` stores floats, `keep` what the source has.",
)
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="keep",
    show_default=True,
    help="Type of the numbers that are not quantized, scales included.",
)
@click.option(
    "--group-size",
    type=click.Choice(["32", "64", "128"]),
    default="64",
    show_default=True,
    help="Weights that share a scale; fewer are larger and truer.",
)
@click.option("--force", is_flag=True, help="Replace a converted model of that name.")
@click.option("--no-check", is_flag=True, help="Neither load the result nor measure its perplexity.")
def convert(source: str, out: str, bits: Bits, dtype: Dtype, group_size: str, force: bool, no_check: bool) -> None:
    """Convert a model for the MLX engine: quantize it, or import a GGUF file.

    SRC is a folder of safetensors, a GGUF file, or the name of a model that is here.
    """
    registry = Registry(load_settings().folders.models)
    found = find_source(source, registry)
    target = find_target(out, registry, is_forced=force)
    job = Job(
        source=found.location,
        name=found.name,
        folder="",
        bits=bits,
        dtype=dtype,
        group_size=int(group_size),
        is_checked=not no_check,
    )
    try:
        with shown_progress() as progress:
            finished = convert_into(target, job, registry, progress)
    except KeyboardInterrupt:
        click.echo("stopped; nothing was kept", err=True)
        raise click.Abort from None
    click.echo("\n".join(page(finished, read_folder(target).spec(target.name))))


def find_source(text: str, registry: Registry) -> ModelSpec:
    """The model to convert; raises `PensieveError` for what is none."""
    is_plain_folder = not looks_like_path(text) and os.path.isdir(text) and registry.entry(text) is None  # noqa: PTH112 - raises nothing
    spec = registry.find(f".{os.sep}{text}" if is_plain_folder else text)
    if spec.format == "script":
        raise UsageError(f"{spec.name} is a script, which has no weights to convert")
    return spec


def find_target(out: str, registry: Registry, *, is_forced: bool) -> Path:
    """The folder of the new model; raises `UsageError` if it may not be written."""
    if looks_like_path(out):
        target = Path(os.path.normpath(expanded(out).absolute()))
    elif entry_named(out, registry.catalog) is not None:
        raise UsageError(f"{one_line(out)} is a name that `pensieve pull` fetches: give the new model another")
    else:
        target = registry.folder / registry.stored_name(out)
    if not is_safe_name(target.name):
        raise UsageError(f"{one_line(out)!r} cannot be a model's name: letters, digits, and ._+- after the first")
    if not os.path.isdir(target.parent):  # noqa: PTH112 - raises nothing
        raise UsageError(f"there is no folder {one_line(str(target.parent))}: make it first")
    _check_replaceable(target, is_forced=is_forced)
    return target


def _check_replaceable(target: Path, *, is_forced: bool) -> None:
    if not os.path.lexists(target):
        return
    is_folder = target.is_dir() and not target.is_symlink()
    if is_folder and (target / MANIFEST_NAME).is_file():
        if not is_forced:
            raise UsageError(f"{target.name} is here already: choose another --out, or replace it with --force")
    elif not is_folder or any(target.iterdir()):
        raise UsageError(f"{one_line(str(target))} holds something that is no converted model: choose another --out")


def convert_into(target: Path, job: Job, registry: Registry, progress: Progress) -> Finished:
    """Run the job and put its files in place, all at once; whatever happens, nothing else is left."""
    with _empty_staging(target, is_ours=target.parent == registry.folder) as staging:
        finished = run_job(msgspec.structs.replace(job, folder=str(staging)), progress, say_warning)
        header = read_folder(staging)
        spec = msgspec.structs.replace(header.spec(target.name, origin="convert"), location="")  # the folder may move
        files = tuple(checked(path, progress) for path in sorted(staging.iterdir()))
        install(staging, target, Manifest(source=job.name, files=files, spec=spec))
    return finished


@contextmanager
def _empty_staging(target: Path, *, is_ours: bool) -> Iterator[Path]:
    """A folder beside the target under its lock, without what a conversion that was killed left there.

    In a folder that is not ours, nothing of it stays.
    """
    with ExitStack() as tidied, staged(target.parent, target.name) as staging:
        if not is_ours:
            tidied.callback(_tidy, target)
        _empty(staging)
        try:
            yield staging
        finally:
            _empty(staging)


def _empty(folder: Path) -> None:
    for child in folder.iterdir() if folder.exists() else ():
        discard(child)


def _tidy(target: Path) -> None:
    """Take the folder of locks away, unless another conversion uses it."""
    staging = target.parent / STAGING_NAME
    with suppress(OSError):
        (staging / f"{target.name}.lock").unlink()
        staging.rmdir()


def page(finished: Finished, spec: ModelSpec) -> list[str]:
    """What to say at the end: sizes, bits and perplexity before and after, and how to use the model."""
    sizes = f"{in_words(finished.bytes_before)} -> {in_words(finished.bytes_after)}"
    lines = [
        f"{one_line(spec.name)} is ready: {', '.join(facts_of(spec))}",
        f"size        {sizes} ({_change(finished.bytes_before, finished.bytes_after)})",
        f"bits/weight {finished.bits_before:.2f} -> {finished.bits_after:.2f}",
    ]
    if finished.perplexity_after is not None:
        lines.append(f"perplexity  {_perplexities(finished, finished.perplexity_after)}")
    return lines


def _perplexities(finished: Finished, after: float) -> str:
    on = f"{finished.num_tokens:,} tokens, lower is better"
    if finished.perplexity_before is None:
        return f"{after:,.2f} ({on}; the source's was not measured: {finished.unmeasured})"
    return f"{finished.perplexity_before:,.2f} -> {after:,.2f} ({_change(finished.perplexity_before, after)}; {on})"


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before > 0 else "new"
