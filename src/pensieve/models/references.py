"""How people name a model of a Hugging Face repository, and which of its files they mean. Pure; asks nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

import msgspec

from pensieve.errors import UsageError
from pensieve.models.catalog import Catalog, entry_named
from pensieve.models.manifest import MAX_NAME_LENGTH
from pensieve.models.metadata import SPLIT_NAME, part_names

PREFERRED_QUANTIZATION: Final = "Q4_K_M"
MAX_LISTED: Final = 20
MAX_PARTS: Final = 1_000
_REFERENCE: Final = re.compile(
    r"(?:hf:)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<path>[^:\\]+)|:(?P<tag>[\w.-]+))?", re.ASCII
)
_PICKLES: Final = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
_NOT_MODELS: Final = ("mmproj", "imatrix")


class HubReference(msgspec.Struct, frozen=True):
    """A repository, and in it a file, a quantization, or neither."""

    repo: str
    path: str = ""
    tag: str = ""


def parse_reference(text: str) -> HubReference | None:
    """`owner/repo`, `owner/repo:QUANT` or `owner/repo/file.gguf`, with or without `hf:`; None for other text."""
    match = _REFERENCE.fullmatch(text)
    if match is None or not text.isprintable():
        return None
    reference = HubReference(match["repo"], match["path"] or "", match["tag"] or "")
    if reference.path:
        _check_path(reference.path)
    return reference


def choose(reference: HubReference, paths: Iterable[str]) -> tuple[str, ...]:
    """The files of the model that is meant, in order; raises `UsageError` listing what there is to choose from."""
    models = sorted({_first_part(path) for path in paths if not _is_no_model(path)})
    wanted = [path for path in models if not reference.tag or _has_tag(path, reference.tag)]
    if len(wanted) > 1 and not reference.tag:
        wanted = [path for path in wanted if _has_tag(path, PREFERRED_QUANTIZATION)]
    if len(wanted) != 1:
        raise _undecided(reference, models)
    return all_parts(wanted[0])


def all_parts(path: str) -> tuple[str, ...]:
    """The paths of all files of the model that the file at `path` belongs to."""
    place = PurePosixPath(path)
    match = SPLIT_NAME.fullmatch(place.name)
    if match is not None and int(match["parts"]) > MAX_PARTS:
        raise UsageError(f"{path} claims {int(match['parts']):,} parts; {MAX_PARTS:,} is the limit")
    return tuple(str(place.with_name(name)) for name in part_names(place.name))


def covers(reference: HubReference, source: str) -> bool:
    """Whether a model of that source, as its manifest records it, may be what the reference means."""
    if source == f"hf:{reference.repo}":
        return not reference.tag and not reference.path
    prefix = f"hf:{reference.repo}/"
    path = source.removeprefix(prefix)
    is_meant = _has_tag(path, reference.tag) if reference.tag else reference.path in {"", path}
    return source.startswith(prefix) and is_meant


def local_names(reference: HubReference, paths: tuple[str, ...], catalog: Catalog) -> tuple[str, tuple[str, ...]]:
    """The name the model is kept under, and the names of its files: safe, whatever the repository says."""
    first = PurePosixPath(paths[0]).name
    split = SPLIT_NAME.fullmatch(first)
    name = _safe(split["stem"] if split else first.removesuffix(PurePosixPath(first).suffix))
    if entry_named(name, catalog) is not None:
        name = _safe(f"{reference.repo.partition('/')[0]}-{name}")
    if len(paths) == 1:
        return name, (f"{name}.gguf",)
    return name, tuple(f"{name}-{part:05}-of-{len(paths):05}.gguf" for part in range(1, len(paths) + 1))


def _check_path(path: str) -> None:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _PICKLES:
        raise UsageError(f"{path} is a pickle, which can run code when it is loaded: pull a .gguf file")
    if suffix != ".gguf":
        raise UsageError(f"{path} is not a .gguf file: only those can be pulled for now")
    if any(step in {"", ".", ".."} for step in path.split("/")):
        raise UsageError(f"{path} is not the path of a file in a repository")


def _first_part(path: str) -> str:
    place = PurePosixPath(path)
    return str(place.with_name(SPLIT_NAME.sub(r"\g<stem>-00001-of-\g<parts>.gguf", place.name)))


def _is_no_model(path: str) -> bool:
    return any(word in PurePosixPath(path).name.lower() for word in _NOT_MODELS)


def _has_tag(path: str, tag: str) -> bool:
    """Whether the file's name says this quantization, as a whole word: Q4_K is not in Q4_K_M."""
    return re.search(rf"(?:^|[-._]){re.escape(tag)}(?=[-.]|$)", PurePosixPath(path).name, re.IGNORECASE) is not None


def _safe(text: str) -> str:
    safe = re.sub(r"[^a-z0-9._+-]+", "-", text.lower()).lstrip("._+-")
    return safe[: MAX_NAME_LENGTH - len("-00001-of-00001.gguf")].rstrip("._+-") or "model"


def _undecided(reference: HubReference, models: list[str]) -> UsageError:
    if not models:
        return UsageError(
            f"{reference.repo} holds no GGUF files: look for a repository of the model with GGUF in its name"
        )
    problem = f"no single file of it is {reference.tag}" if reference.tag else "it holds several models"
    listed = ", ".join(f"{reference.repo}/{path}" for path in models[:MAX_LISTED])
    more = f" and {len(models) - MAX_LISTED} more" if len(models) > MAX_LISTED else ""
    return UsageError(f"{reference.repo}: {problem}; name one of {listed}{more}")
