"""How surprised a model is by a text: the exponential of the mean negative log-likelihood of its tokens.

Two forms of one model are compared by it on the same tokens. Lives on the thread that owns the model's arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any, Final

import mlx.core as mx

from pensieve.inference.mlx import architectures

WINDOW_TOKENS: Final = 512
"""Each window is read without what was before it."""
CHUNK_TOKENS: Final = 64
"""Tokens of a window that are read at once, so that logits of large vocabularies stay small."""
TEXT_NAME: Final = "evaluation.txt"


def evaluation_text() -> str:
    """The text that the project ships: plain English about several subjects."""
    return resources.files(__package__).joinpath(TEXT_NAME).read_text(encoding="utf-8")


def perplexity(model: Any, tokens: Sequence[int], note: Callable[[int], None] = lambda _: None) -> float:
    """The model's perplexity on at least two tokens, log-softmax in float32; `note` is told how many were read.

    1 is certainty, the vocabulary's size is a model that knows nothing; infinite or NaN is a broken one.
    """
    assert len(tokens) > 1, "a text of one token says nothing"
    total, num_scored, num_read = 0.0, 0, 0
    for window in _windows(tokens):
        caches = architectures.make_caches(model)
        for start in range(0, len(window) - 1, CHUNK_TOKENS):
            chunk = window[start : start + CHUNK_TOKENS + 1]
            total += _surprise(model, caches, chunk)
            num_scored += len(chunk) - 1
            note(num_read + start + len(chunk))
        num_read += len(window)
    mean = total / num_scored
    return math.exp(mean) if mean < math.log(1e300) else math.inf  # NaN compares as infinite


def _windows(tokens: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(tokens), WINDOW_TOKENS):
        window = tokens[start : start + WINDOW_TOKENS]
        if len(window) > 1:
            yield window


def _surprise(model: Any, caches: list[Any], chunk: Sequence[int]) -> float:
    """Summed negative log-likelihood, in nats, of every token of the chunk but its first."""
    read, scored = mx.array(list(chunk[:-1])), mx.array(list(chunk[1:]))
    logits = model(read[None], cache=caches)[0].astype(mx.float32)
    likely = mx.take_along_axis(logits, scored[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    return -float(likely.sum())
