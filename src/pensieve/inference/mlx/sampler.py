"""The next token of each row of a batch: penalties, bias, filters and the draw, in as few array operations as can be.

The order is llama.cpp's: top-k, top-p, min-p, then temperature, so that both engines mean the same by the same numbers.
A draw uses one random number of the sequence's own generator, so a seed gives the same answer alone and in a batch.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from pensieve.inference.mlx.steering import Steering
from pensieve.sampling.params import SamplingParams

COLDEST = 1e-5
"""A lower temperature is none: logits divided by it may overflow, and the likeliest token is all that is left."""


ALMOST_ONE = 1 - 2**-24
"""The largest number below one in single precision: one itself would mean a token without any probability."""


class Report(NamedTuple):
    """Probabilities of one drawn token, as arrays that are not evaluated yet."""

    logprob: mx.array
    ids: mx.array
    """[num_logprobs], most likely first."""
    logprobs: mx.array


class Draw(NamedTuple):
    """What was drawn for each row, as arrays that are not evaluated yet."""

    tokens: mx.array
    """[B]."""
    is_finite: mx.array
    """[B]: False where the model gave no numbers to draw from."""
    reports: tuple[Report | None, ...]


class RowSampler:
    """How one sequence's next token is chosen; keeps what its penalties must remember."""

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        outputs: Sequence[int] = (),
        *,
        vocabulary_size: int,
        logit_bias: Mapping[int, float] | None = None,
        num_logprobs: int | None = None,
        steering: Steering | None = None,
    ) -> None:
        """`params` has no unset field; `outputs` are tokens made before a pause, so that the answer goes on as it was.

        Ids outside the vocabulary are ignored.
        """
        self._vocabulary_size = vocabulary_size
        self.steering = steering
        """None: any token may come."""
        self.temperature = params.temperature or 0.0
        self.top_k = min(params.top_k or vocabulary_size, vocabulary_size)
        self.top_p = 1.0 if params.top_p is None else params.top_p
        self.min_p = params.min_p or 0.0
        self.num_logprobs = None if num_logprobs is None else min(num_logprobs, vocabulary_size)
        self._seed = params.seed or 0
        self._num_drawn = len(outputs)
        self._penalties = _Penalties.of(params, prompt, outputs, vocabulary_size)
        bias = {token: value for token, value in (logit_bias or {}).items() if 0 <= token < vocabulary_size}
        self._bias = (mx.array(list(bias)), mx.array(list(bias.values()))) if bias else None

    @property
    def is_greedy(self) -> bool:
        """The likeliest token is taken."""
        return self.temperature < COLDEST

    @property
    def is_filtered(self) -> bool:
        """Unlikely tokens are left out."""
        return self.top_k < self._vocabulary_size or self.top_p < 1.0 or self.min_p > 0.0

    @property
    def changes_logits(self) -> bool:
        """The logits must go through `adjust`."""
        return self._penalties is not None or self._bias is not None

    def uniform(self) -> float:
        """The random number of the next draw, in [0, 1): a function of the seed and the place in the answer alone."""
        place = struct.pack("<QQ", self._seed, self._num_drawn)
        self._num_drawn += 1
        return min(int.from_bytes(hashlib.blake2b(place, digest_size=4).digest()) / 2**32, ALMOST_ONE)

    def adjust(self, logits: mx.array, last: mx.array, *, is_output: bool) -> mx.array:
        """Logits [V] with penalties and bias; `last` [] is the newest token, `is_output` whether the model made it."""
        if self._penalties is not None:
            if is_output:
                self._penalties.count(last)
            logits = self._penalties.apply(logits)
        if self._bias is not None:
            ids, values = self._bias
            logits = logits.at[ids].add(values.astype(logits.dtype))
        return logits


class _Penalties:
    """Repetition looks at prompt and answer (Keskar et al. 2019); presence and frequency at the answer (OpenAI)."""

    def __init__(self, repetition: float, presence: float, frequency: float, seen: mx.array) -> None:
        self._repetition, self._presence, self._frequency = repetition, presence, frequency
        self._seen = seen
        self._counts = mx.zeros(seen.shape)

    @classmethod
    def of(
        cls, params: SamplingParams, prompt: Sequence[int], outputs: Sequence[int], vocabulary_size: int
    ) -> _Penalties | None:
        """None where all are off."""
        repetition = params.repetition_penalty or 1.0
        presence, frequency = params.presence_penalty or 0.0, params.frequency_penalty or 0.0
        if repetition == 1.0 and presence == 0.0 and frequency == 0.0:
            return None
        seen = mx.zeros((vocabulary_size,), dtype=mx.bool_)
        if prompt:
            seen[mx.array(list(prompt))] = True
        penalties = cls(repetition, presence, frequency, seen)
        if outputs:
            penalties.count(mx.array(list(outputs)))
        return penalties

    def count(self, tokens: mx.array) -> None:
        self._counts = self._counts.at[tokens].add(1.0)

    def apply(self, logits: mx.array) -> mx.array:
        if self._repetition != 1.0:
            weakened = mx.where(logits > 0, logits / self._repetition, logits * self._repetition)
            logits = mx.where(self._seen | (self._counts > 0), weakened, logits)
        return logits - self._presence * (self._counts > 0) - self._frequency * self._counts


def draw(logits: mx.array, rows: Sequence[RowSampler], last: mx.array, are_outputs: Sequence[bool]) -> Draw:
    """One token a row from logits [B, V]; `last` [B] are the tokens that went in, `are_outputs` who made them."""
    logits = logits.astype(mx.float32)
    is_finite = mx.isfinite(mx.max(logits, axis=-1))
    reports_from = logits
    if any(row.changes_logits for row in rows):
        logits = mx.stack(
            [
                row.adjust(logits[index], last[index], is_output=are_outputs[index]) if row.changes_logits
                else logits[index]
                for index, row in enumerate(rows)
            ]
        )  # fmt: skip
    if any(row.steering for row in rows):
        logits = _steer(logits, [row.steering.allowed() if row.steering else None for row in rows])
    tokens = _choose(logits, rows).astype(mx.int32)
    reports = tuple(_report(reports_from[index], tokens[index], row) for index, row in enumerate(rows))
    return Draw(tokens, is_finite, reports)


def _steer(logits: mx.array, masks: Sequence[bytes | None]) -> mx.array:
    """Logits [B, V], those of tokens that may not come at minus infinity; a mask has a bit a token, None allows all."""
    if all(mask is None for mask in masks):
        return logits
    size = logits.shape[-1]
    may_come = np.ones((len(masks), size), dtype=np.bool_)
    for row, mask in zip(may_come, masks, strict=True):
        if mask is not None:
            bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=min(size, 8 * len(mask)), bitorder="little")
            row[: len(bits)], row[len(bits) :] = bits, False
    return mx.where(mx.array(may_come), logits, -mx.inf)


def _choose(logits: mx.array, rows: Sequence[RowSampler]) -> mx.array:
    best = mx.argmax(logits, axis=-1)
    if all(row.is_greedy for row in rows):
        return best
    drawn = _sample(logits, rows)
    if not any(row.is_greedy for row in rows):
        return drawn
    return mx.where(mx.array([row.is_greedy for row in rows]), best, drawn)


def _sample(logits: mx.array, rows: Sequence[RowSampler]) -> mx.array:
    """By inversion: the first candidate whose cumulated probability passes the row's random number.

    Rows that leave nothing out go through the vocabulary in its order, the others through theirs from the likeliest
    down: which of the two a row does must depend on the row alone.
    """
    temperatures = mx.array([[row.temperature or 1.0] for row in rows])
    numbers = mx.array([[0.0 if row.is_greedy else row.uniform()] for row in rows])
    drawn = [row for row in rows if not row.is_greedy]
    if not any(row.is_filtered for row in drawn):
        return _invert(logits, temperatures, numbers)[:, 0]
    candidates = _candidates(logits, max(row.top_k for row in drawn if row.is_filtered))
    filtered = _filter(mx.take_along_axis(logits, candidates, axis=-1), rows)
    chosen = mx.take_along_axis(candidates, _invert(filtered, temperatures, numbers), axis=-1)
    if not all(row.is_filtered for row in drawn):
        are_filtered = mx.array([[row.is_filtered] for row in rows])
        chosen = mx.where(are_filtered, chosen, _invert(logits, temperatures, numbers))
    return chosen[:, 0]


def _invert(logits: mx.array, temperatures: mx.array, numbers: mx.array) -> mx.array:
    """The places [B, 1] in logits [B, K] that random numbers [B, 1] mean."""
    cumulated = mx.cumsum(mx.softmax(logits / temperatures, axis=-1), axis=-1)
    places = mx.sum(cumulated <= numbers * cumulated[:, -1:], axis=-1, keepdims=True)
    return mx.minimum(places, logits.shape[-1] - 1).astype(mx.uint32)


def _candidates(logits: mx.array, width: int) -> mx.array:
    """The `width` likeliest tokens [B, width], in falling order; of equally likely ones the lower id comes first."""
    keys = _keys(logits)
    if width >= logits.shape[-1]:
        return mx.argsort(keys, axis=-1)
    best = mx.argpartition(keys, kth=width - 1, axis=-1)[:, :width]
    return mx.take_along_axis(best, mx.argsort(mx.take_along_axis(keys, best, axis=-1), axis=-1), axis=-1)


def _keys(logits: mx.array) -> mx.array:
    """Numbers that sort logits in falling order. On a CPU they hold the id as well, since its partition leaves open
    which of equal ones it takes, and half-precision models make many; the GPUs' is a stable sort.
    """
    if mx.default_device() != mx.Device(mx.cpu):
        return -logits
    bits = (logits + 0.0).view(mx.int32)  # adding turns -0.0 into 0.0
    ordered = mx.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(mx.int64)
    return mx.arange(logits.shape[-1], dtype=mx.int64) - ordered * 2**32


def _filter(logits: mx.array, rows: Sequence[RowSampler]) -> mx.array:
    """Logits [B, K] in falling order, those that top-k, top-p and min-p leave out at minus infinity."""
    ranks = mx.arange(logits.shape[-1])[None]
    is_kept = ranks < mx.array([[row.top_k] for row in rows])
    probabilities = mx.softmax(mx.where(is_kept, logits, -mx.inf), axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    is_kept &= before < mx.array([[row.top_p] for row in rows])
    is_kept &= probabilities >= mx.array([[row.min_p] for row in rows]) * probabilities[:, :1]
    return mx.where(is_kept | (ranks == 0), logits, -mx.inf)


def _report(logits: mx.array, token: mx.array, row: RowSampler) -> Report | None:
    """Of the model's own distribution, before penalties, bias and temperature."""
    if row.num_logprobs is None:
        return None
    logprobs = logits - mx.logsumexp(logits)
    count = row.num_logprobs
    ids = mx.argsort(-logprobs)[:count] if count else mx.zeros((0,), dtype=mx.int32)
    return Report(logprobs[token], ids, logprobs[ids] if count else mx.zeros((0,)))
