"""From a request to the steering of its answer: whether and how long it thinks, and what it must look like.

Runs on the text thread; knows no arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest
from pensieve.inference.constraints.lark import to_lark
from pensieve.inference.constraints.plan import plan
from pensieve.inference.mlx.matching import Vocabulary
from pensieve.inference.mlx.steering import Course, Steering
from pensieve.inference.mlx.tokenizer import MlxTokenizer
from pensieve.inference.parsing.grammar import CHANNEL, END, MESSAGE, START, THINK_TAGS, OutputGrammar, Span

_ANALYSIS: Final = Span(f"{CHANNEL}analysis{MESSAGE}", END)
_FINAL: Final = f"{START}assistant{CHANNEL}final{MESSAGE}"


class Courses:
    """Steers the answers of one model."""

    def __init__(self, tokenizer: MlxTokenizer, num_columns: int, stop_tokens: Sequence[int]) -> None:
        """`stop_tokens` are the model's own."""
        self._tokenizer, self._num_columns, self._stop_tokens = tokenizer, num_columns, tuple(stop_tokens)
        self._known: Vocabulary | None = None

    def steering(self, request: GenerationRequest, grammar: OutputGrammar) -> Steering | None:
        """None where anything may be said. Raises `InvalidRequest` for a schema that cannot be obeyed."""
        constraint = plan(request, grammar)
        course = self._course(request, grammar, is_bound=constraint is not None)
        if constraint is None:
            is_needed = course.thinking == "is unwanted" or course.budget_tokens is not None
            return Steering(course, self._vocabulary, None) if is_needed and course.thinking != "none" else None
        grammar_text = to_lark(constraint, self._vocabulary.markers)
        triggers = tuple((text.encode(), self._tokens(text)) for text in constraint.triggers)
        course = msgspec.structs.replace(course, triggers=triggers)
        return Steering(course, self._vocabulary, self._vocabulary.matcher(grammar_text))

    @property
    def _vocabulary(self) -> Vocabulary:
        if not self._stop_tokens:
            raise InvalidRequest("this model names no token that ends an answer, so its answers cannot be steered")
        if self._known is None:
            self._known = Vocabulary(self._tokenizer, self._num_columns, self._stop_tokens)
        return self._known

    def _course(self, request: GenerationRequest, grammar: OutputGrammar, *, is_bound: bool) -> Course:
        is_channels = grammar.style == "channels"
        span = _ANALYSIS if is_channels else grammar.thinking
        wanted = request.thinking
        is_off = wanted is None or wanted.mode == "disabled"
        if span is None or (is_off and not grammar.starts_in_thinking and not (is_channels and wanted is None)):
            return Course(stop_tokens=self._stop_tokens)
        closer = f"\n{span.closer}\n\n" if span == THINK_TAGS else span.closer
        return Course(
            thinking=("is unwanted" if is_off else "has begun") if grammar.starts_in_thinking else "may begin",
            opener=self._tokens(span.opener),
            opener_text=span.opener.encode(),
            closer=self._tokens(closer),
            closer_text=span.closer.encode(),
            bridge=self._tokens(_FINAL) if is_channels and not request.tools and not is_bound else (),
            may_think_again=is_channels,
            budget_tokens=None if wanted is None or is_off else wanted.budget_tokens,
            stop_tokens=self._stop_tokens,
        )

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, adds_special=False))
