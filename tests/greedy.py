"""Prompts of random tokens, and what a tiny model answers to them greedily, straight through its caches."""

from __future__ import annotations

import random
from typing import Any

import mlx.core as mx


def prompt(num_tokens: int, *, seed: int = 0) -> list[int]:
    """Random tokens."""
    return [random.Random(seed * 100_003 + place).randrange(3, 99) for place in range(num_tokens)]


def read(model: Any, tokens: list[int], caches: list[Any]) -> mx.array:
    """Feed the tokens in one step; the scores that follow the last."""
    scores: mx.array = model(mx.array([tokens]), cache=caches)[0, -1]
    mx.eval(scores)
    return scores


def greedy(model: Any, tokens: list[int], caches: list[Any], num_tokens: int = 8) -> list[int]:
    """The best continuation, token by token; the caches go on with it."""
    answer: list[Any] = []
    scores = read(model, tokens, caches)
    while len(answer) < num_tokens:
        answer.append(mx.argmax(scores).item())
        scores = read(model, answer[-1:], caches)
    return answer
