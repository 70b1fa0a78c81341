"""The engine for folders of safetensors, on MLX; mlx-lm brings the layers of each family and their caches.

Importing this package keeps mlx-lm from importing transformers: that takes more than half of a worker's start, and its
tokenizers are the one thing of mlx-lm that is not used here.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


class Unused:
    """Stands for what mlx-lm imports from its tokenizer module by name; nothing here makes one."""


def _leave_tokenizers_out() -> None:
    """Make mlx-lm's modules importable one by one: the package's own code would import all of them."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or "mlx_lm" in sys.modules:
        return
    tokenizers = ModuleType("mlx_lm.tokenizer_utils")
    tokenizers.__dict__.update(TokenizerWrapper=Unused, load=Unused)
    sys.modules["mlx_lm"] = importlib.util.module_from_spec(spec)
    sys.modules["mlx_lm.tokenizer_utils"] = tokenizers


_leave_tokenizers_out()
