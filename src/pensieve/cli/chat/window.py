"""Which turns of one conversation are in its prompts: counts what `conversation.window` wants counted, and remembers.

Turns that left once stay out, so that the prompt's beginning stays the same and is found in caches. Knows no terminal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from pensieve.conversation import window as policy
from pensieve.conversation.conversation import Turn
from pensieve.errors import ContextOverflow
from pensieve.generation import Usage

OVERHEAD_TOKENS = 64
"""What a template may put around one more message, beside the words themselves."""

CountTokens = Callable[[Sequence[Turn]], Awaitable[int]]
"""Tokens of the prompt with these turns."""


class Forgot(msgspec.Struct, frozen=True):
    """The oldest turns are in the prompt no more, because the context is full; told once in a conversation."""

    num_turns: int


class Window:
    """What left the prompts of one conversation."""

    def __init__(self) -> None:
        self._left: set[int] = set()
        self._is_told = False

    @property
    def num_left(self) -> int:
        """Turns that are in the prompt no more."""
        return len(self._left)

    def turns(self, spoken: Sequence[Turn]) -> tuple[Turn, ...]:
        """Those turns that are in the prompt still."""
        return tuple(turn for turn in spoken if turn.id not in self._left)

    async def fit(
        self, spoken: Sequence[Turn], count: CountTokens, limit_tokens: int, max_tokens: int | None
    ) -> Forgot | None:
        """Let as many turns leave as must; raises `ContextOverflow` where the question alone is too long."""
        staying, leaving = policy.split(spoken)
        room = policy.Room(
            num_turns=len(leaving),
            start=sum(turn.id in self._left for turn in leaving),
            limit_tokens=limit_tokens,
            reserved_tokens=policy.reserved_for_answer(limit_tokens, max_tokens),
        )
        counted: dict[int, int] = {}
        while isinstance(decision := policy.decide(room, counted), policy.Count):
            counted[decision.start] = await count((*staying, *leaving[decision.start :]))
        if isinstance(decision, policy.TooLong):
            raise ContextOverflow(prompt_tokens=decision.prompt_tokens, limit_tokens=decision.limit_tokens)
        self._left |= {turn.id for turn in leaving[: decision.start]}
        if not decision.num_left or self._is_told:
            return None
        self._is_told = True
        return Forgot(decision.num_left)


def surely_fits(last: Usage, num_bytes: int, limit_tokens: int, max_tokens: int | None) -> bool:
    """Whether the next prompt fits in any case: the last prompt and answer were counted, and no byte is two tokens."""
    at_most = last.prompt_tokens + last.completion_tokens + num_bytes + OVERHEAD_TOKENS
    return last.prompt_tokens > 0 and at_most <= limit_tokens - policy.reserved_for_answer(limit_tokens, max_tokens)
