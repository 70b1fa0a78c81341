"""The arrays of running sequences: prompts are read one by one, answers are decoded in one batch.

One row is decoded with the model's plain caches, which have the quicker kernels; more rows share batched ones. Each
step computes the next tokens while the last ones are read back; where a row is steered, the next logits.
Lives on the engine thread; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from pensieve.inference.mlx import layout
from pensieve.inference.mlx.batch_cache import batched, viewed
from pensieve.inference.mlx.sampler import Draw, Report, RowSampler, draw

Caches = list[Any]
"""mlx-lm's cache objects, one a layer."""

Model = Callable[..., mx.array]
"""Called with tokens [B, L] and `cache=`; gives logits [B, L, V]."""


class Probabilities(NamedTuple):
    """Of one token, in plain numbers; `alternatives` are ids with their log-probabilities, most likely first."""

    logprob: float
    alternatives: tuple[tuple[int, float], ...]


class Spoken(NamedTuple):
    """A token that a row has made; `is_finite` False: the model gave no numbers, and the token means nothing."""

    row_id: str
    token: int
    is_finite: bool
    probabilities: Probabilities | None


class _Row:
    """A sequence in the batch. `tokens` is what its cache holds; the newest token is not among them yet."""

    def __init__(self, row_id: str, sampler: RowSampler, tokens: list[int]) -> None:
        self.id = row_id
        self.sampler = sampler
        self.tokens = tokens
        self.is_known = True
        """Its newest token was given out already; False: it was drawn since."""


class Runner:
    """Reads prompts and decodes rows for one model."""

    def __init__(self, model: Model, make_cache: Callable[[], Caches], *, tail_tokens: int = 2048) -> None:
        """`tail_tokens`: logits of so many tokens may be made at once."""
        self._model = model
        self._tail_tokens = tail_tokens
        self._rows: list[_Row] = []
        self._caches: Caches = []
        self._is_batched = False
        self._newest: Draw | None = None
        """The newest token of each row: drawn, or given by `join`."""
        self.is_batchable = all(hasattr(leaf, "merge") for leaf in layout.leaves(make_cache()))
        """Rows can share caches; else only one may join at a time."""

    @property
    def row_ids(self) -> tuple[str, ...]:
        """Who is being decoded, oldest first."""
        return tuple(row.id for row in self._rows)

    def read(self, caches: Caches, tokens: Sequence[int]) -> None:
        """Put a piece of a prompt into caches of batch size 1."""
        self._model(mx.array([list(tokens)]), cache=caches)
        mx.eval([cache.state for cache in caches])

    def read_last(self, sequence_id: str, sampler: RowSampler, caches: Caches, tokens: Sequence[int]) -> Spoken:
        """Put the last piece of a prompt into its caches and draw the first token of the answer, all in one step."""
        head, tail = tokens[: -self._tail_tokens], tokens[-self._tail_tokens :]
        if head:  # in the same graph; its logits are never computed
            self._model(mx.array([list(head)]), cache=caches)
        logits = self._model(mx.array([list(tail)]), cache=caches)[:, -1, :]
        first = draw(logits, [sampler], mx.array([tokens[-1]]), [False])
        mx.eval(first.tokens, first.is_finite, first.reports, [cache.state for cache in caches])
        token: Any = first.tokens.item()
        is_finite: Any = first.is_finite.item()
        if sampler.steering is not None:
            sampler.steering.take(token)
        return Spoken(sequence_id, token, is_finite, _in_numbers(first.reports[0]))

    def join(self, row_id: str, sampler: RowSampler, caches: Caches, tokens: Sequence[int]) -> None:
        """Decode this sequence from now on: `caches` hold all of its tokens but the last, which the model has made.

        Takes the caches over.
        """
        given = Draw(mx.array([tokens[-1]]), mx.array([True]), (None,))
        if not self._rows:
            self._caches, self._is_batched, self._newest = caches, False, given
        else:
            assert self._newest is not None
            if self._is_batched:
                for mine, theirs in zip(self._caches, caches, strict=True):
                    mine.extend(batched([theirs]))
            else:
                self._caches = [batched(pair) for pair in zip(self._caches, caches, strict=True)]
                self._is_batched = True
            self._newest = Draw(
                mx.concatenate([self._newest.tokens, given.tokens]),
                mx.concatenate([self._newest.is_finite, given.is_finite]),
                (*self._newest.reports, None),
            )
        self._rows.append(_Row(row_id, sampler, list(tokens[:-1])))

    def step(self) -> list[Spoken]:
        """Compute the next token of every row, and give the ones computed before; a new row has none the first time."""
        assert self._newest is not None, "nothing to decode"
        newest, inputs = self._newest, self._newest.tokens
        logits = self._model(inputs[:, None], cache=self._caches)[:, -1, :]
        samplers = [row.sampler for row in self._rows]
        spoken = self._steered(logits, newest) if any(sampler.steering for sampler in samplers) else None
        self._newest = draw(logits, samplers, inputs, [True] * len(samplers))
        mx.async_eval(self._newest.tokens, self._newest.is_finite, self._newest.reports)  # type: ignore[no-untyped-call]
        return self._spoken(newest) if spoken is None else spoken

    def _steered(self, logits: mx.array, newest: Draw) -> list[Spoken]:
        """Read the last tokens back before the next are drawn, since they say what those may be.

        The device computes the logits meanwhile, and goes on with them while masks are made in the draw.
        """
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        spoken = self._spoken(newest)
        said = {each.row_id: each.token for each in spoken}
        for row in self._rows:
            if row.sampler.steering is not None and row.id in said:
                row.sampler.steering.take(said[row.id])
        return spoken

    def tokens(self, row_id: str) -> list[int]:
        """What the row's cache holds."""
        return self._rows[self._place(row_id)].tokens

    def caches(self, row_id: str) -> Caches:
        """The row's caches, to be read before the next step; they may be the live ones."""
        place = self._place(row_id)
        return [viewed(cache, place) for cache in self._caches] if self._is_batched else self._caches

    def leave(self, row_ids: Sequence[str]) -> None:
        """Decode these no more; unknown ones are fine."""
        keep = [place for place, row in enumerate(self._rows) if row.id not in row_ids]
        if len(keep) == len(self._rows):
            return
        self._rows = [self._rows[place] for place in keep]
        if not keep:
            self._caches, self._newest, self._is_batched = [], None, False
            return
        if len(keep) == 1:
            self._caches = [cache.extract(keep[0]) for cache in self._caches]
            self._is_batched = False
        else:
            for cache in self._caches:
                cache.filter(keep)
        assert self._newest is not None
        kept, reports = mx.array(keep), tuple(self._newest.reports[place] for place in keep)
        self._newest = Draw(self._newest.tokens[kept], self._newest.is_finite[kept], reports)

    def clear(self) -> None:
        """Drop the batch, whatever state it is in."""
        self._rows, self._caches, self._newest, self._is_batched = [], [], None, False

    def close(self) -> None:
        """Drop every array; the engine thread calls it before it ends."""
        self.clear()
        mx.synchronize()

    def _place(self, row_id: str) -> int:
        return next(place for place, row in enumerate(self._rows) if row.id == row_id)

    def _spoken(self, newest: Draw) -> list[Spoken]:
        tokens: Any = newest.tokens.tolist()
        are_finite: Any = newest.is_finite.tolist()
        spoken = []
        for row, token, is_finite, report in zip(self._rows, tokens, are_finite, newest.reports, strict=True):
            row.tokens.append(token)
            if not row.is_known:
                spoken.append(Spoken(row.id, token, is_finite, _in_numbers(report)))
            row.is_known = False
        return spoken


def _in_numbers(report: Report | None) -> Probabilities | None:
    if report is None:
        return None
    logprob: Any = report.logprob.item()
    ids: Any = report.ids.tolist()
    logprobs: Any = report.logprobs.tolist()
    return Probabilities(logprob, tuple(zip(ids, logprobs, strict=True)))
