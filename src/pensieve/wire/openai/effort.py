"""How hard to think, in OpenAI's words, and as our thinking: a model here thinks or does not, for so many tokens.

Both of OpenAI's APIs say it with the same words. Knows no request.
"""

from __future__ import annotations

from pensieve.generation import Thinking

BUDGETS: dict[str, int | None] = {"minimal": 512, "low": 1_024, "medium": 8_192, "high": None}
"""Tokens of thinking for each word; None: as much as the model likes, which is what stronger words mean too."""
EFFORTS = ("none", *BUDGETS)


def decode_effort(effort: str | None) -> Thinking:
    """The thinking that a word asks for; without one it is left to the model."""
    if effort is None:
        return Thinking("adaptive")
    if effort == "none":
        return Thinking("disabled")
    return Thinking("enabled", BUDGETS.get(effort))


def encode_effort(thinking: Thinking) -> str | None:
    """The word for it: the least that grants as many tokens, for a budget that no word names."""
    if thinking.mode == "adaptive":
        return None
    if thinking.mode == "disabled":
        return "none"
    wanted = thinking.budget_tokens
    granted = ((word, budget) for word, budget in BUDGETS.items() if budget is not None and wanted is not None)
    return next((word for word, budget in granted if budget >= (wanted or 0)), "high")
