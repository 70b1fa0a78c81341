"""Which models are on this machine: those `pull` and `convert` made, by name, and what is yours, by path.

Finds and removes; `staging` puts in place what arrives. Knows no network and no engine.
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from pensieve.errors import LoadFailed, ModelNotFound, PensieveError, UsageError
from pensieve.models.catalog import CATALOG, Catalog, entry_named
from pensieve.models.folders import read_folder
from pensieve.models.manifest import MANIFEST_NAME, Manifest, is_safe_name, read_manifest
from pensieve.models.metadata import read_gguf
from pensieve.models.references import HubReference, covers, parse_reference
from pensieve.models.spec import ModelSpec
from pensieve.models.staging import STAGING_NAME, discard, locked


class Entry(msgspec.Struct, frozen=True):
    """A model's folder: its manifest, or what is wrong with it."""

    name: str
    manifest: Manifest | None
    problem: str = ""


class Leftover(msgspec.Struct, frozen=True):
    """What a pull that was stopped, or still runs, has fetched of a model that is not here."""

    name: str
    num_bytes: int


class Registry:
    """The models under one folder; names are matched without regard to capitals."""

    def __init__(self, folder: Path, catalog: Catalog = CATALOG) -> None:
        self.folder = folder
        self.catalog = catalog

    def find(self, name_or_path: str) -> ModelSpec:
        """The model of that name, alias or path; raises `ModelNotFound`, or `LoadFailed` if it is damaged."""
        if looks_like_path(name_or_path):
            return self._at_path(name_or_path)
        entry = self.entry(name_or_path)
        if entry is None:
            raise self.not_found(name_or_path)
        if entry.manifest is None:
            raise LoadFailed(entry.problem, model=entry.name)
        return entry.manifest.spec

    def all(self) -> tuple[ModelSpec, ...]:
        """Every model that is whole, by name."""
        return tuple(entry.manifest.spec for entry in self.entries() if entry.manifest is not None)

    def entries(self) -> tuple[Entry, ...]:
        """Every model's folder, damaged ones too, by name."""
        return tuple(_read_entry(self.folder / name) for name in self._names())

    def entry(self, name: str) -> Entry | None:
        """The folder of the model of that name or alias, if there is one."""
        stored = self.stored_name(name)
        return _read_entry(self.folder / stored) if stored in self._names() else None

    def stored_name(self, name: str) -> str:
        """The name a model is kept under: an alias stands for its catalog entry."""
        known = entry_named(name, self.catalog)
        return known.name if known is not None else name.lower()

    def remove(self, name: str) -> int:
        """Delete a model that `pull` or `convert` made, or what is left of its pull; gives the bytes freed."""
        if looks_like_path(name):
            raise UsageError(f"{name} is a file of yours: Pensieve deletes only what it pulled or converted itself")
        entry = self.entry(name)
        doomed = self.leftovers(name) if entry is None else self.folder / entry.name
        if doomed is None:
            raise self.not_found(name)
        with locked(self.folder, doomed.name):
            return _delete(doomed)

    def leftovers(self, name: str) -> Path | None:
        """The folder of what an interrupted pull of that name left, if there is one."""
        stored = self.stored_name(name)
        folder = self.folder / STAGING_NAME / stored
        return folder if is_safe_name(stored) and folder.is_dir() else None

    def all_leftovers(self) -> tuple[Leftover, ...]:
        """What unfinished pulls of models that are not here have fetched, by name."""
        here = set(self._names())
        folders = [path for path in _listed(self.folder / STAGING_NAME) if path.is_dir() and path.name not in here]
        found = [Leftover(path.name, _num_bytes(path)) for path in folders if is_safe_name(path.name)]
        return tuple(sorted((left for left in found if left.num_bytes), key=lambda left: left.name))

    def not_found(self, text: str) -> PensieveError:
        """What to tell of a name or path that leads to no model: the next step, where there is one."""
        reference = _reference(text)
        if looks_like_path(text) and (reference is None or text.lower().endswith(".gguf")):
            hint = f"; if the Hugging Face hub has it, `pensieve pull {text}` fetches it" if reference else ""
            return UsageError(f"there is no file {text}{hint}")
        entry = entry_named(text, self.catalog)
        if entry is not None:
            return ModelNotFound(entry.name, is_known=True)
        known = {*self._names(), *(word for entry in self.catalog for word in (entry.name, *entry.aliases))}
        nearest = difflib.get_close_matches(text.lower(), sorted(known), n=1)
        return ModelNotFound(text, nearest=nearest[0] if nearest else "")

    def _at_path(self, text: str) -> ModelSpec:
        path = expanded(text)
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for paths that cannot be looked up
            folder = read_folder(path)
            return folder.spec(folder.path.resolve().name or "model")
        if exists(path):
            return read_gguf(path).spec(path.stem)
        reference = _reference(text)
        pulled = [entry.manifest for entry in self.entries() if entry.manifest is not None] if reference else []
        specs = [manifest.spec for manifest in pulled if reference and covers(reference, manifest.source)]
        if len(specs) != 1:
            raise self.not_found(text)
        return specs[0]

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(_names_in(self.folder)))


def looks_like_path(text: str) -> bool:
    """Whether the text is meant as a path rather than a model's name."""
    return os.sep in text or text.startswith("~") or text.lower().endswith(".gguf")


def expanded(text: str) -> Path:
    """The path with `~` resolved; an unknown user's home stays as it was written."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises where this leaves the text alone


def exists(path: Path) -> bool:
    """Whether something is there; a path that cannot even be looked up (too long, no permission) is not there."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for such paths


def _reference(text: str) -> HubReference | None:
    """The text as a Hugging Face reference to a GGUF model, if it is one; `models/mine.gguf` is a path."""
    try:
        reference = parse_reference(text)
    except UsageError:
        return None
    return None if reference is not None and reference.repo.lower().endswith(".gguf") else reference


def _names_in(folder: Path) -> Iterator[str]:
    for child in _listed(folder):
        if is_safe_name(child.name) and exists(child / MANIFEST_NAME):
            yield child.name


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"the models folder {folder} cannot be read: {error.strerror or error}") from error


def _num_bytes(folder: Path) -> int:
    """Of all files in it; what goes while it is counted counts nothing."""
    num_bytes = 0
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                num_bytes += path.lstat().st_size if path.is_file() else 0
    return num_bytes


def _read_entry(folder: Path) -> Entry:
    try:
        return Entry(folder.name, read_manifest(folder))
    except LoadFailed as damage:
        return Entry(folder.name, None, damage.problem)


def _delete(folder: Path) -> int:
    if folder.is_symlink():
        raise UsageError(f"{folder.name} is a link to a folder elsewhere: remove the link {folder} yourself")
    try:
        num_bytes = _num_bytes(folder)
        discard(folder / MANIFEST_NAME)  # first, so that half a deletion leaves no model
        shutil.rmtree(folder)
    except OSError as error:
        raise UsageError(f"{folder} could not be deleted: {error.strerror or error}") from error
    return num_bytes
