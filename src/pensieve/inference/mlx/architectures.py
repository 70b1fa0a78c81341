"""mlx-lm's models, built from a checked folder: the one place that uses its loading code. Runs no code of the folder.

Knows nothing of tokenizers and settings. Lives on the engine thread.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx.nn.layers.quantized import quantize as quantize_layers
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import MODEL_ARCHITECTURE_REMAPPING, MODEL_REMAPPING, load_model

from pensieve.errors import LoadFailed
from pensieve.messages import Json

Model = Any
"""An mlx-lm model: `model(tokens[B, L], cache=caches) -> logits[B, L, V]`."""

GROUP_SIZES: Final = (64, 32)
"""Numbers that share a scale when we quantize: the first that divides a layer's width."""
MAX_REASON_LENGTH: Final = 200
CLEAR_BYTES: Final = 2**28
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_FOREIGN: Final = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, AssertionError),
    *(OSError, ImportError, NameError, MemoryError),
)
"""What mlx and mlx-lm raise for a config or weights that make no sense to them."""


def load_weights(folder: Path, config: Mapping[str, Json], files: tuple[Path, ...]) -> Model:
    """The model with its weights still unread (lazy), quantized as config.json says; raises `LoadFailed`.

    `files` are the weight files that were checked; a folder where mlx-lm would read others is refused.
    """
    if "model_file" in config:
        problem = "its config.json asks to run a Python file of its own, which is never done: use another model"
        raise LoadFailed(problem, model=folder.name)
    if set(glob.glob(str(folder / "model*.safetensors"))) != {str(file) for file in files}:  # noqa: PTH207 - mlx-lm's own rule
        problem = "its folder or weight files have names with unusual characters: rename them to letters and digits"
        raise LoadFailed(problem, model=folder.name)
    _classes(config, folder.name)
    try:
        model, _ = load_model(
            folder, lazy=True, strict=True, get_model_classes=lambda config: _classes(config, folder.name)
        )
    except _FOREIGN as error:
        raise LoadFailed(_sentence(config, error), model=folder.name) from error
    return model


def evaluate(model: Model, name: str) -> int:
    """Read the weights into memory, array by array, so that little is held twice; their bytes. Raises `LoadFailed`."""
    read_bytes = uncleared_bytes = 0
    try:
        for array in _arrays(model):
            mx.eval(array)
            read_bytes += array.nbytes
            uncleared_bytes += array.nbytes
            if uncleared_bytes > CLEAR_BYTES:
                # What a cast or quantization no longer needs would wait in MLX's own cache of buffers.
                mx.clear_cache()
                uncleared_bytes = 0
        mx.eval(model.state)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise LoadFailed(f"its weights could not be read: {_one_line(error)}", model=name) from error
    mx.clear_cache()
    return read_bytes


def quantize(model: Model, bits: int) -> None:
    """Quantize every layer that can be, in place, to `bits` (4 or 8); lazy."""
    own_rule: Callable[[str, Any], bool | dict[str, int]] | None = getattr(model, "quant_predicate", None)

    def choose(path: str, module: Any) -> bool | dict[str, int]:
        if not hasattr(module, "to_quantized"):
            return False
        size = next((size for size in GROUP_SIZES if module.weight.shape[-1] % size == 0), None)
        wanted = own_rule(path, module) if own_rule is not None else True
        if size is None or not wanted:
            return False
        return wanted if isinstance(wanted, dict) else {"group_size": size, "bits": bits}

    quantize_layers(model, group_size=GROUP_SIZES[0], bits=bits, class_predicate=choose)


def cast(model: Model, dtype: mx.Dtype) -> None:
    """Turn every floating parameter, scales of quantized ones included, into `dtype`, in place; lazy."""
    keeps: Callable[[str], bool] = getattr(model, "cast_predicate", lambda _: True)

    def turned(path: str, array: mx.array) -> mx.array:
        is_turned = mx.issubdtype(array.dtype, mx.floating) and (dtype == mx.float32 or keeps(path))
        return array.astype(dtype) if is_turned else array

    model.update(tree_map_with_path(turned, model.parameters()))


def num_bytes(model: Model, *, is_float32: bool = False) -> int:
    """Bytes of the parameters as they are, or as they would be with every floating one in float32; reads nothing."""
    return sum(
        array.size * 4 if is_float32 and mx.issubdtype(array.dtype, mx.floating) else array.nbytes
        for array in _arrays(model)
    )


def is_quantized(model: Model) -> bool:
    """Whether any layer holds packed weights."""
    return any(array.dtype == mx.uint32 for array in _arrays(model))


def dtypes(model: Model) -> tuple[str, ...]:
    """The types of the parameters, each once, sorted: `mlx.core.float32`, ..."""
    return tuple(sorted({str(array.dtype) for array in _arrays(model)}))


def make_caches(model: Model) -> list[Any]:
    """Empty caches for one sequence, one a layer."""
    caches: list[Any] = make_prompt_cache(model)
    return caches


def _arrays(model: Model) -> list[mx.array]:
    return list(dict(tree_flatten(model.parameters())).values())


def _classes(config: Mapping[str, Json], name: str) -> tuple[Any, Any]:
    """The classes of the model and its arguments; raises `LoadFailed` for an architecture mlx-lm does not have."""
    architecture = _module_name(config)
    if not isinstance(architecture, str) or not _SAFE_NAME.fullmatch(architecture):
        raise LoadFailed("its config.json has no usable model_type: use a model in Hugging Face's form", model=name)
    module_name = f"mlx_lm.models.{architecture}"
    if importlib.util.find_spec(module_name) is None:
        raise LoadFailed(_unknown(architecture), model=name)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise LoadFailed(f"{_unknown(architecture)} ({_one_line(error)})", model=name) from error
    if not hasattr(module, "Model") or not hasattr(module, "ModelArgs"):
        raise LoadFailed(_unknown(architecture), model=name)
    return module.Model, module.ModelArgs


def _module_name(config: Mapping[str, Json]) -> Json:
    architecture = config.get("model_type")
    if not isinstance(architecture, str):
        return None
    declared = config.get("architectures")
    for each in declared if isinstance(declared, list) else ():
        if isinstance(each, str) and (architecture, each) in MODEL_ARCHITECTURE_REMAPPING:
            return MODEL_ARCHITECTURE_REMAPPING[architecture, each]
    return MODEL_REMAPPING.get(architecture, architecture)


def _unknown(architecture: str) -> str:
    return f"architecture {architecture} is not one the MLX engine knows: use a GGUF file of it, or update Pensieve"


def _sentence(config: Mapping[str, Json], error: BaseException) -> str:
    line = _one_line(error)
    architecture = config.get("model_type")
    if isinstance(error, ValueError) and "parameter" in line:
        return f"its weights are not those of {architecture} as config.json has it: {line}: fetch both again"
    return f"mlx-lm cannot build {architecture} from its config.json and weights: {type(error).__name__}: {line}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_REASON_LENGTH else f"{text[:MAX_REASON_LENGTH]} ..."
