"""What a model will take before it is loaded, and whether that fits: pure sums and decisions, in bytes.

Knows no engine; the numbers are of the model's header, the overheads were measured.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pensieve.models.sizes import gigabytes
from pensieve.models.spec import ModelSpec

EngineName = Literal["llama.cpp", "mlx"]

MIB = 2**20
SCRATCH_BYTES: dict[EngineName, int] = {"llama.cpp": 256 * MIB, "mlx": 512 * MIB}
"""What a step takes beside weights and cache, about, at the chunk sizes the engines choose."""

PROCESS_BYTES: dict[EngineName, int] = {"llama.cpp": 80 * MIB, "mlx": 160 * MIB}
"""What a worker takes before it has loaded anything: Python and the engine's own code. Measured on Linux."""

SMALLEST_CONTEXT_TOKENS = 4096
"""A context below which a model is of little use, and none that is shorter is chosen unasked."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of what a model takes, for one sequence that fills its context."""

    weight_bytes: int
    window_bytes: int
    """Of the cache, what does not grow with the context."""
    bytes_per_token: int
    is_estimated: bool = False
    """No header is here to tell what a token takes; the figure is rather too much."""
    scratch_bytes: int
    process_bytes: int
    is_cache_apart: bool = False
    """Each request that runs has a cache of its own, beside the one of kept prompts."""

    @property
    def fixed_bytes(self) -> int:
        """All that does not depend on the context."""
        return self.weight_bytes + self.window_bytes + self.scratch_bytes + self.process_bytes

    def cache_bytes(self, num_tokens: int) -> int:
        """The cache of a context that long."""
        return self.window_bytes + self.bytes_per_token * num_tokens

    def at(self, num_tokens: int) -> int:
        """All of it, with that context."""
        return self.fixed_bytes + self.bytes_per_token * num_tokens

    def running_bytes(self, num_running: int, num_tokens: int) -> int:
        """What so many requests may take beside weights and kept prompts; llama.cpp's cache is one, taken at load."""
        return self.scratch_bytes + (num_running * self.cache_bytes(num_tokens) if self.is_cache_apart else 0)

    def most_tokens(self, spare_bytes: int, limit_tokens: int) -> int:
        """The longest context that fits, at most the limit; 0 if none does."""
        left = spare_bytes - self.fixed_bytes
        if left < 0:
            return 0
        return min(limit_tokens, left // self.bytes_per_token) if self.bytes_per_token else limit_tokens


class Fits(msgspec.Struct, frozen=True, tag=True):
    """It can be loaded with that context; `problem` says why that is less than was wanted, else it is empty."""

    context_tokens: int
    problem: str = ""


class TooBig(msgspec.Struct, frozen=True, tag=True):
    """It cannot be loaded, and why; `most_tokens` of context would fit, 0: none that is worth it."""

    problem: str
    most_tokens: int = 0


Verdict = Fits | TooBig


def predict(spec: ModelSpec) -> Prediction:
    """What the model of that header takes."""
    engine: EngineName = "mlx" if spec.format == "mlx" else "llama.cpp"
    is_estimated = spec.cache_bytes_per_token == 0 and spec.cache_window_bytes == 0
    return Prediction(
        weight_bytes=spec.weight_bytes,
        window_bytes=spec.cache_window_bytes,
        bytes_per_token=estimated_cache_bytes(spec.parameters) if is_estimated else spec.cache_bytes_per_token,
        is_estimated=is_estimated,
        scratch_bytes=SCRATCH_BYTES[engine],
        process_bytes=PROCESS_BYTES[engine],
        is_cache_apart=engine == "mlx",
    )


def judge(prediction: Prediction, spare_bytes: int, *, wanted_tokens: int, is_fixed: bool) -> Verdict:
    """Whether it fits into that much; a context that nobody fixed is cut to what fits, down to 4,096 tokens."""
    if prediction.at(wanted_tokens) <= spare_bytes:
        return Fits(wanted_tokens)
    smallest = min(wanted_tokens, SMALLEST_CONTEXT_TOKENS)
    most = prediction.most_tokens(spare_bytes, wanted_tokens)
    # Whole steps: a context of 17,393 tokens would look like a mistake.
    most = most // 256 * 256 if most > smallest else most
    if most < smallest:
        return TooBig(_numbers(prediction, smallest, spare_bytes))
    if is_fixed:
        return TooBig(_numbers(prediction, wanted_tokens, spare_bytes), most)
    return Fits(most, f"context {most} of {wanted_tokens} tokens: more does not fit in memory")


def estimated_cache_bytes(parameters: int) -> int:
    """Cache of a token for a dense model of that size whose heads share nothing, at 2 bytes an element.

    A layer has about 12 * width^2 weights, and widths are about 128 times the number of layers; so phi-3-mini's
    393,216 bytes come out as 371,000. Models with grouped heads or experts take a part of it.
    """
    width = (max(0, parameters) * 128 / 12) ** (1 / 3)
    return int(4 * width * width / 128)


def _numbers(prediction: Prediction, num_tokens: int, spare_bytes: int) -> str:
    parts = (
        f"weights {gigabytes(prediction.weight_bytes)}",
        f"cache for {num_tokens:,} tokens {gigabytes(prediction.cache_bytes(num_tokens))}",
        f"work {gigabytes(prediction.scratch_bytes + prediction.process_bytes)}",
    )
    return (
        f"it needs {gigabytes(prediction.at(num_tokens))} of memory ({', '.join(parts)}),"
        f" and {gigabytes(max(0, spare_bytes))} can be had"
    )
