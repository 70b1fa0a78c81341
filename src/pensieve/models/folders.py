"""What a folder of safetensors says of itself: config.json, the tensors' headers, the chat template.

Plain Python; imports no engine and runs no code of the folder. What is broken, incomplete or of another kind is
`LoadFailed`, with the next step in the sentence.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from pensieve.errors import LoadFailed
from pensieve.messages import Json
from pensieve.models.layers import CacheCost, Config, cache_cost
from pensieve.models.quantization import name_of, num_parameters
from pensieve.models.safetensors import MAX_TENSORS, Tensor, read_safetensors
from pensieve.models.spec import Capability, ModelSpec, Origin
from pensieve.models.templates import capabilities_of

CONFIG_NAME: Final = "config.json"
TOKENIZER_NAME: Final = "tokenizer.json"
WHOLE_NAME: Final = "model.safetensors"
INDEX_NAME: Final = "model.safetensors.index.json"
WEIGHT_NAME: Final = re.compile(r"model[A-Za-z0-9._-]{0,80}\.safetensors", re.ASCII)
MAX_JSON_BYTES: Final = 64 * 2**20
MAX_TEMPLATE_BYTES: Final = 2**20
MAX_SHARDS: Final = 1_000
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.safetensors", re.ASCII)
_TEXT_OR_FLOAT: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|-?\bInfinity\b|\bNaN\b', re.DOTALL)
"""A text, whole, or one of the floats that JSON has no word for and Python writes all the same."""
_PICKLES: Final = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})


class FolderHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a model in a folder. Numbers are 0 and texts empty where the files do not say."""

    path: Path
    written_seconds: int
    """When the weights were last written, in Unix time."""
    architecture: str
    context_tokens: int
    quantization: str
    parameters: int
    weight_bytes: int
    cache: CacheCost
    chat_template: str

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What the chat template can express."""
        return capabilities_of(self.chat_template)

    def spec(self, name: str, *, origin: Origin = "local") -> ModelSpec:
        """The model under that name."""
        return ModelSpec(
            name=name,
            location=str(self.path),
            format="mlx",
            origin=origin,
            architecture=self.architecture,
            context_tokens=self.context_tokens,
            quantization=self.quantization,
            parameters=self.parameters,
            weight_bytes=self.weight_bytes,
            cache_bytes_per_token=self.cache.bytes_per_token,
            cache_window_bytes=self.cache.window_bytes,
            capabilities=self.capabilities,
            created_seconds=self.written_seconds,
        )


def read_folder(path: Path) -> FolderHeader:
    """The facts of the model in the folder `path`; raises `LoadFailed`, and nothing else."""
    path = path.absolute()
    if not _is_file(path / CONFIG_NAME):
        raise LoadFailed(_without_config(path), model=path.name)
    document = read_json(path / CONFIG_NAME)
    config = Config(document)
    files = weight_files(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_safetensors(file)
        if len(tensors) > MAX_TENSORS:
            raise LoadFailed(f"it claims more than {MAX_TENSORS:,} tensors: this is no model", model=path.name)
    return FolderHeader(
        path=path,
        written_seconds=max(0, int(max(map(os.path.getmtime, files)))),
        architecture=config.family,
        context_tokens=config.context_tokens,
        quantization=name_of(document, tensors),
        parameters=num_parameters(document, tensors),
        weight_bytes=sum(tensor.num_bytes for tensor in tensors.values()),
        cache=cache_cost(config),
        chat_template=read_template(path),
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of the model, sorted by name; raises `LoadFailed` if there are none or some are missing."""
    names = sorted(name for name in _names_in(folder) if WEIGHT_NAME.fullmatch(name) and _is_file(folder / name))
    if not names:
        raise LoadFailed(_without_weights(folder), model=folder.name)
    if len(names) > MAX_SHARDS:
        raise LoadFailed(f"it has {len(names):,} files of weights; {MAX_SHARDS:,} is the limit", model=folder.name)
    missing = missing_shards(names, _indexed(folder) if WHOLE_NAME not in names else ())
    if missing:
        problem = f"{len(missing)} of its files of weights are missing, first {missing[0][:100]}: fetch them as well"
        raise LoadFailed(problem, model=folder.name)
    return tuple(folder / name for name in names)


def missing_shards(names: Iterable[str], indexed: Iterable[str] = ()) -> tuple[str, ...]:
    """What an index names, or the numbers in the names promise, beyond what is there. Some models count from 0."""
    here = set(names)
    promised = set(indexed)
    for match in filter(None, map(_SHARD.fullmatch, here)):
        parts = min(int(match["parts"]), MAX_SHARDS + 1)
        promised |= {f"{match['stem']}-{part:05}-of-{match['parts']}.safetensors" for part in range(1, parts + 1)}
    return tuple(sorted(promised - here))


def read_template(folder: Path) -> str:
    """The chat template: a file of its own, else the one among the tokenizer's settings; empty if there is none."""
    if _is_file(folder / "chat_template.jinja"):
        return _bounded(folder / "chat_template.jinja", MAX_TEMPLATE_BYTES).decode("utf-8", "replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if _is_file(folder / name) and (template := _template_in(read_json(folder / name).get("chat_template"))):
            return template
    return ""


def read_json(path: Path) -> dict[str, Json]:
    """The object in a JSON file of the folder; raises `LoadFailed` if it is none or too large.

    `Infinity`, `-Infinity` and `NaN`, which Python writes, are read as `{"__float__": "Infinity"}` and its like.
    """
    content = _bounded(path, MAX_JSON_BYTES)
    try:
        try:
            return msgspec.json.decode(content, type=dict[str, Json])
        except msgspec.DecodeError:
            return msgspec.json.decode(_TEXT_OR_FLOAT.sub(_tagged, content), type=dict[str, Json])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LoadFailed(f"{path.name} is no valid JSON object: {error}", model=path.parent.name) from error


def _tagged(found: re.Match[bytes]) -> bytes:
    return found[0] if found[0].startswith(b'"') else b'{"__float__":"%b"}' % found[0]


def _template_in(value: Json) -> str:
    """A template as it stands, or the default one of several with names."""
    if isinstance(value, str):
        return value[:MAX_TEMPLATE_BYTES]
    named = [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
    template = next((each.get("template") for each in named if each.get("name") == "default"), None)
    return template[:MAX_TEMPLATE_BYTES] if isinstance(template, str) else ""


def _indexed(folder: Path) -> tuple[str, ...]:
    if not _is_file(folder / INDEX_NAME):
        return ()
    weight_map = read_json(folder / INDEX_NAME).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    return tuple(Counter(name for name in names if isinstance(name, str)))


def _names_in(folder: Path) -> list[str]:
    try:
        return [child.name for child in folder.iterdir()]
    except OSError as error:
        raise LoadFailed(f"the folder cannot be read: {error.strerror or error}", model=folder.name) from error


def _without_config(folder: Path) -> str:
    names = _names_in(folder)
    if any(name.lower().endswith(".gguf") for name in names):
        return "this is a folder with GGUF files: name one of the files"
    return "there is no config.json in this folder: name the folder of a whole model, with all its files"


def _without_weights(folder: Path) -> str:
    suffixes = {Path(name).suffix.lower() for name in _names_in(folder)}
    if suffixes & _PICKLES:
        return "its weights are pickles, which can run code when loaded: convert to safetensors, or find such a copy"
    return "there is no model*.safetensors in this folder: fetch the model's weights into it"


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for paths that cannot be looked up


def _bounded(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise LoadFailed(f"{path.name} cannot be read: {error.strerror or error}", model=path.parent.name) from error
    if len(content) > max_bytes:
        raise LoadFailed(f"{path.name} is larger than {max_bytes:,} bytes: this is no model", model=path.parent.name)
    return content
