"""How people name a model of a Hugging Face repository, and which of its files they mean. Pure; asks nobody."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from typing import Final

import msgspec

from pensieve.errors import UsageError
from pensieve.models.catalog import Catalog, HubSource, entry_named
from pensieve.models.folders import CONFIG_NAME, INDEX_NAME, TOKENIZER_NAME, WEIGHT_NAME, missing_shards
from pensieve.models.manifest import MAX_NAME_LENGTH
from pensieve.models.metadata import SPLIT_NAME, part_names

PREFERRED_QUANTIZATION: Final = "Q4_K_M"
MAX_LISTED: Final = 20
MAX_PARTS: Final = 1_000
_REFERENCE: Final = re.compile(
    r"(?:hf:)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w.-]*))?"
    r"(?:/(?P<path>[^:\\]+)|:(?P<tag>[\w.-]+))?",
    re.ASCII,
)
_PICKLES: Final = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
FOLDER_NAMES: Final = frozenset(
    {
        CONFIG_NAME,
        TOKENIZER_NAME,
        INDEX_NAME,
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.model",
        "chat_template.jinja",
        "chat_template.json",
    }
)
"""What is fetched beside the weights; nothing that is code, and nothing that could be mistaken for a manifest."""
_NOT_MODELS: Final = ("mmproj", "imatrix")


class HubReference(msgspec.Struct, frozen=True):
    """A repository, and in it a file, a quantization, or neither."""

    repo: str
    path: str = ""
    tag: str = ""
    revision: str = ""
    """A branch, tag or commit; empty for what the repository shows first."""

    @property
    def folder_source(self) -> str:
        """What a manifest records of a model that is all of a repository."""
        return f"hf:{self.repo}@{self.revision}" if self.revision else f"hf:{self.repo}"


def parse_reference(text: str) -> HubReference | None:
    """`owner/repo`, `owner/repo:QUANT` or `owner/repo/file.gguf`, with or without `hf:`; None for other text.

    A revision follows the repository: `owner/repo@REVISION`.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or not text.isprintable():
        return None
    reference = HubReference(match["repo"], match["path"] or "", match["tag"] or "", match["revision"] or "")
    if reference.path:
        _check_path(reference.path)
    return reference


def has_gguf(paths: Iterable[str]) -> bool:
    """Whether any of the files is a GGUF model."""
    return any(path.lower().endswith(".gguf") and not _is_no_model(path) for path in paths)


def has_folder(paths: Iterable[str]) -> bool:
    """Whether the files at the repository's root make a model of safetensors."""
    names = set(paths)
    return CONFIG_NAME in names and any(map(WEIGHT_NAME.fullmatch, names))


def folder_files(repo: str, paths: Collection[str]) -> tuple[str, ...]:
    """The files at the root that a model of safetensors is loaded from, config.json first; no others are wanted.

    Raises `UsageError` for what could not be loaded, before anything is fetched.
    """
    names = sorted({path for path in paths if path in FOLDER_NAMES or WEIGHT_NAME.fullmatch(path)})
    weights = [name for name in names if WEIGHT_NAME.fullmatch(name)]
    if CONFIG_NAME not in names or not weights:
        raise UsageError(_without_model(repo, paths))
    if TOKENIZER_NAME not in names:
        problem = f"{repo} has no tokenizer.json, which is needed to read text"
        raise UsageError(f"{problem}: look for another copy of the model that has one")
    if len(weights) > MAX_PARTS:
        raise UsageError(f"{repo} has {len(weights):,} files of weights; {MAX_PARTS:,} is the limit")
    if missing := missing_shards(weights):
        raise UsageError(f"{repo} is not whole: {len(missing)} files of weights are missing, first {missing[0]}")
    return (CONFIG_NAME, *(name for name in names if name != CONFIG_NAME))


def folder_name(reference: HubReference, catalog: Catalog) -> str:
    """The name a model of safetensors is kept under: the catalog's, where it is one of those, else the repository's."""
    for entry in catalog:
        if isinstance(entry.source, HubSource) and entry.source.text == reference.folder_source:
            return entry.name
    owner, _, repo = reference.repo.partition("/")
    name = _safe(repo)
    return name if entry_named(name, catalog) is None else _safe(f"{owner}-{name}")


def choose(reference: HubReference, paths: Collection[str]) -> tuple[str, ...]:
    """The files of the model that is meant, in order; raises `UsageError` listing what there is to choose from."""
    models = sorted({_first_part(path) for path in paths if has_gguf([path])})
    wanted = [path for path in models if not reference.tag or _has_tag(path, reference.tag)]
    if len(wanted) > 1 and not reference.tag:
        wanted = [path for path in wanted if _has_tag(path, PREFERRED_QUANTIZATION)]
    if len(wanted) != 1:
        raise _undecided(reference, models, paths)
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
    if source == reference.folder_source:
        return not reference.tag and not reference.path
    prefix = f"{reference.folder_source}/"
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
        raise UsageError(f"{path} is a pickle, which can run code when it is loaded: pull GGUF or safetensors")
    if suffix != ".gguf":
        problem = f"{path} is not a .gguf file: of single files only those can be pulled"
        raise UsageError(f"{problem}; owner/repo alone pulls a model of safetensors, with all its files")
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


def _undecided(reference: HubReference, models: list[str], paths: Collection[str]) -> UsageError:
    if not models:
        return UsageError(_without_model(reference.repo, paths))
    problem = f"no single file of it is {reference.tag}" if reference.tag else "it holds several models"
    listed = ", ".join(f"{reference.repo}/{path}" for path in models[:MAX_LISTED])
    more = f" and {len(models) - MAX_LISTED} more" if len(models) > MAX_LISTED else ""
    return UsageError(f"{reference.repo}: {problem}; name one of {listed}{more}")


def _without_model(repo: str, paths: Collection[str]) -> str:
    suffixes = {PurePosixPath(path).suffix.lower() for path in paths}
    if has_gguf(paths):
        return f"{repo} holds no config.json with model*.safetensors: pull its GGUF model with --format gguf"
    if has_folder(paths):
        return f"{repo} holds no GGUF model: pull its safetensors with --format mlx"
    if suffixes & _PICKLES and ".safetensors" not in suffixes:
        return f"the weights in {repo} are pickles, which can run code when loaded: look for safetensors or GGUF"
    return f"{repo} holds neither GGUF nor model*.safetensors with a config.json: look for another copy of the model"
