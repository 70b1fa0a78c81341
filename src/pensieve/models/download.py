"""`pull`: a name becomes a model on this machine, whole and checked, or nothing does.

Knows the order of the steps; where bytes come from is in `pypi` and `hub`, where they lie in `staging`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

from pensieve.errors import DownloadFailed, LoadFailed, UsageError
from pensieve.models.catalog import entry_named
from pensieve.models.manifest import Manifest, WeightFile
from pensieve.models.metadata import read_gguf
from pensieve.models.progress import Progress, silent
from pensieve.models.pypi import PypiModel
from pensieve.models.references import all_parts, choose, local_names, parse_reference
from pensieve.models.registry import Registry, exists, expanded, looks_like_path
from pensieve.models.spec import ModelSpec
from pensieve.models.staging import discard, install, staged


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


def pull(text: str, registry: Registry, progress: Progress = silent, *, is_forced: bool = False) -> ModelSpec:
    """The model named by a catalog name or a Hugging Face reference, fetched if it is not here yet."""
    return pull_from(locate(text, registry), registry, progress, is_forced=is_forced)


def pull_from(source: Source, registry: Registry, progress: Progress, *, is_forced: bool = False) -> ModelSpec:
    """The model of that source; one that is here already is fetched again only if forced."""
    with staged(registry.folder, source.name) as staging:
        here = registry.entry(source.name)
        if here is not None and here.manifest is not None and not is_forced:
            _check_same(here.manifest, source)
            progress("already here", here.manifest.num_bytes, here.manifest.num_bytes)
            return here.manifest.spec
        files = source.fetch(staging, progress)
        manifest = _read_arrived(source, staging, files)
        install(staging, registry.folder / source.name, manifest)
    return registry.find(source.name)


def locate(text: str, registry: Registry) -> Source:
    """Where the model is to be fetched from; raises `UsageError` for what cannot be pulled."""
    entry = entry_named(text, registry.catalog)
    if entry is not None:
        return PypiModel(entry)
    if looks_like_path(text) and exists(expanded(text)):
        raise UsageError(f"{text} is on this machine already: name it as it is, with `--model {text}`")
    here = registry.entry(text)
    if here is not None and here.manifest is None:
        raise UsageError(f"{here.name} is damaged: pull it by its full name (owner/repo/file.gguf), or remove it")
    source = _on_hub(text if here is None or here.manifest is None else here.manifest.source, registry)
    if source is None:
        raise registry.not_found(text)
    return source


def _on_hub(text: str, registry: Registry) -> Source | None:
    reference = parse_reference(text)
    if reference is None:
        return None
    from pensieve.models.hub import Hub, HubModel  # noqa: PLC0415 - a fifth of a second that only this path needs

    hub = Hub(os.environ.get("HF_ENDPOINT") or None)
    paths = all_parts(reference.path) if reference.path else choose(reference, hub.gguf_paths(reference.repo))
    name, file_names = local_names(reference, paths, registry.catalog)
    return HubModel(name=name, repo=reference.repo, paths=paths, file_names=file_names, hub=hub)


def _read_arrived(source: Source, staging: Path, files: tuple[WeightFile, ...]) -> Manifest:
    """The manifest of what arrived; a file that is no model is deleted, however right its checksum."""
    try:
        header = read_gguf(staging / files[0].name)
    except LoadFailed as broken:
        discard(staging)
        raise DownloadFailed(f"{source.text} arrived whole but is no model: {broken.problem}") from broken
    spec = msgspec.structs.replace(header.spec(source.name, origin="pull"), location="")  # the folder may move
    return Manifest(source=source.text, files=files, spec=spec)


def _check_same(here: Manifest, source: Source) -> None:
    if here.source != source.text:
        problem = f"{source.name} is here already, from {here.source}: remove it first, or replace it with --force"
        raise UsageError(problem)
