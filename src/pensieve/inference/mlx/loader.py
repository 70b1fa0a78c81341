"""From a folder of safetensors to a model that answers: files checked, weights read, a first word said.

Runs on the engine thread, which owns the arrays it makes. Reads only what is data; never code of the folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mlx.core as mx

from pensieve.config.settings import Settings
from pensieve.devices.processes import read_own_memory
from pensieve.errors import InvalidRequest, LoadFailed
from pensieve.inference.mlx import architectures
from pensieve.inference.mlx.configuration import eos_ids, read_config, vocabulary_size
from pensieve.inference.mlx.tokenizer import MlxTokenizer
from pensieve.models.folders import CONFIG_NAME, TOKENIZER_NAME, read_folder, weight_files
from pensieve.models.sizes import gigabytes
from pensieve.models.spec import ModelSpec

DEFAULT_CONTEXT_TOKENS: Final = 4096
"""Of a model that does not say."""
QUESTION: Final = "The capital of France is"
NUM_CHECKED_TOKENS: Final = 3
HEADER_SAMPLE_BYTES: Final = 2**20
_BITS: Final = {"int4": 4, "int8": 8}


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory and what an engine must know of it. `model` belongs to the thread that loaded it."""

    model: Any
    """`model(tokens[B, L], cache=caches) -> logits[B, L, V]`."""
    config: dict[str, Any]
    tokenizer: MlxTokenizer
    chat_template: str
    """"" if it has none."""
    eos_ids: frozenset[int]
    weight_bytes: int
    context_tokens: int
    vocabulary_size: int
    """Columns of the logits; the tokenizer may know fewer tokens."""
    fingerprint: str
    """Differs when weights, quantization, template or tokenizer differ: what a stored cache belongs to."""


def load(spec: ModelSpec, settings: Settings, *, room_bytes: int | None = None) -> LoadedModel:
    """Load the model at `spec.location`; raises `LoadFailed`, and nothing else.

    On a CPU the arithmetic is turned to float32, which is many times quicker there, unless that takes more than
    `room_bytes`, and weights that take more as they are are refused; None: what memory is available now.
    """
    try:
        return _load(Path(spec.location), settings, room_bytes)
    except LoadFailed as error:
        error.model = spec.name
        raise
    except OSError as error:
        raise LoadFailed(f"a file cannot be read: {error.strerror or error}", model=spec.name) from error


def _load(folder: Path, settings: Settings, room_bytes: int | None) -> LoadedModel:
    folder = folder.absolute()
    header = read_folder(folder)
    config = read_config(folder)
    tokenizer = MlxTokenizer.open(folder)
    tokenizer.limit(vocabulary_size(config))
    files = weight_files(folder)
    model = architectures.load_weights(folder, config, files)
    quantization = settings.mlx.quantization
    _prepare(model, folder.name, quantization)
    if mx.default_device() == mx.Device(mx.cpu):
        _fit(model, folder.name, read_own_memory().available_bytes if room_bytes is None else room_bytes)
    weight_bytes = architectures.evaluate(model, folder.name)
    num_columns = check_answers(model, tokenizer, folder.name)
    tokenizer.limit(num_columns)
    return LoadedModel(
        model=model,
        config=config,
        tokenizer=tokenizer,
        chat_template=header.chat_template,
        eos_ids=eos_ids(folder, config, tokenizer.id_of(tokenizer.eos_token)),
        weight_bytes=weight_bytes,
        context_tokens=header.context_tokens or DEFAULT_CONTEXT_TOKENS,
        vocabulary_size=num_columns,
        fingerprint=_fingerprint(folder, files, header.chat_template, quantization, architectures.dtypes(model)),
    )


def _prepare(model: Any, name: str, quantization: str) -> None:
    """Bring the weights into the form that was asked for; lazy."""
    if quantization != "none" and architectures.is_quantized(model):
        problem = f"its weights are quantized already: leave mlx.quantization at none, not {quantization}"
        raise LoadFailed(problem, model=name)
    if quantization == "fp16":
        architectures.cast(model, mx.float16)
    elif bits := _BITS.get(quantization):
        architectures.quantize(model, bits)


def _fit(model: Any, name: str, room_bytes: int | None) -> None:
    """Turn to float32, which a CPU is quick with, where that fits; lazy. None: the room is not known."""
    needed_bytes = architectures.num_bytes(model)
    if room_bytes is not None and needed_bytes > room_bytes:
        problem = f"its weights take {gigabytes(needed_bytes)} and {gigabytes(room_bytes)} are free"
        raise LoadFailed(f"{problem}: close other programs, or use a smaller or quantized model", model=name)
    if room_bytes is None or architectures.num_bytes(model, is_float32=True) <= room_bytes:
        architectures.cast(model, mx.float32)


def check_answers(model: Any, tokenizer: MlxTokenizer, name: str) -> int:
    """Say a few greedy words; the number of columns of the logits. Raises `LoadFailed` if they are no numbers."""
    try:
        tokens = tokenizer.encode(QUESTION) or [0]
    except InvalidRequest as error:
        problem = f"{TOKENIZER_NAME} is larger than the model and belongs to another one: fetch both again"
        raise LoadFailed(problem, model=name) from error
    caches = architectures.make_caches(model)
    for _ in range(NUM_CHECKED_TOKENS):
        try:
            logits = model(mx.array([tokens]), cache=caches)[0, -1].astype(mx.float32)
            best: int = logits.argmax().tolist()
            least, most, is_finite = logits.min().item(), logits.max().item(), mx.isfinite(logits).all().item()
        except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, AttributeError) as error:
            problem = f"its first words failed: {' '.join(str(error).split())[:300]}: fetch its files again"
            raise LoadFailed(problem, model=name) from error
        if not is_finite:
            raise LoadFailed("its weights give no finite numbers: fetch or convert it again", model=name)
        if least == most:
            raise LoadFailed("its weights give every word the same chance: fetch or convert it again", model=name)
        tokens = [best]
    return int(logits.size)


def _fingerprint(
    folder: Path, files: tuple[Path, ...], template: str, quantization: str, types: tuple[str, ...]
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    # The same files give other caches in another precision, and maybe with other code.
    texts = (importlib.metadata.version("mlx-lm"), quantization, *types, template)
    parts = [text.encode("utf-8", "replace") for text in texts]
    parts += [(folder / name).read_bytes() for name in (CONFIG_NAME, TOKENIZER_NAME)]
    for file in files:
        status = file.stat()
        with file.open("rb") as opened:
            start = opened.read(HEADER_SAMPLE_BYTES)
        parts += [f"{file.name} {status.st_size} {status.st_mtime_ns}".encode(), start]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
