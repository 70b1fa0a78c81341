"""What is known of one model: a frozen value, made from its file header or a catalog entry. Loads nothing."""

from __future__ import annotations

from typing import Literal

import msgspec

Format = Literal["gguf", "mlx", "script"]
Origin = Literal["pull", "convert", "local"]
Capability = Literal["thinking", "tools", "images", "structured_outputs"]


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is on this machine. Sizes are 0 and texts empty where the header does not say."""

    name: str
    location: str
    """The file (GGUF) or folder (MLX); never sent to a client."""
    format: Format = "gguf"
    origin: Origin = "local"
    architecture: str = ""
    context_tokens: int = 0
    """The context the model was trained for."""
    quantization: str = ""
    parameters: int = 0
    weight_bytes: int = 0
    cache_bytes_per_token: int = 0
    """Bytes of key-value cache that each token adds, over all layers, at 2 bytes an element."""
    cache_window_bytes: int = 0
    """Bytes that all sliding windows of a sequence hold once they are full; they grow no further."""
    capabilities: tuple[Capability, ...] = ()
    """What the template can express; what an engine makes of it, its `Limits` say."""
    created_seconds: int = 0
    """When the weights were written here, in Unix time."""
