"""What an agent is told of a model's size, and which of its tools it gets. Plain decisions: starts nothing.

The rule by which Claude Code compacts, and the sizes of prompts, were measured (docs/agents.md names the versions).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pensieve.errors import UsageError

Tools = Literal["all", "reduced", "bare"]

PROMPT_TOKENS: dict[Tools, int] = {"all": 14_000, "reduced": 5_000, "bare": 1_300}
"""Of the first request with these tools, with room for tokenizers that make more of it than others."""
ROOM_TOKENS: dict[Tools, int] = {"all": 4_000, "reduced": 4_000, "bare": 1_400}
"""What a conversation needs beyond it before it is compacted, or it would be compacted all the time."""
RESERVE_TOKENS = 3_000
OUTPUT_CAP_TOKENS = 20_000
SMALLEST_OUTPUT_TOKENS = 512
LARGEST_OUTPUT_TOKENS = 32_000
SMALLEST_WINDOW_TOKENS = 16_384
"""Told of a smaller one (12,288 was tried), Claude Code compacts every third turn, however little was said."""


class ModelFacts(msgspec.Struct, frozen=True):
    """What the server says of a model, as it is loaded now."""

    name: str
    context_tokens: int
    max_output_tokens: int
    thinks: bool = False


class Plan(msgspec.Struct, frozen=True):
    """The limits that Claude Code is given, and its tools."""

    context_tokens: int
    output_tokens: int
    tools: Tools

    @property
    def window_tokens(self) -> int:
        """What Claude Code is told; where the context is smaller, the server's refusal makes it compact in time."""
        return max(self.context_tokens, SMALLEST_WINDOW_TOKENS)

    @property
    def compacts_at_tokens(self) -> int:
        """The size of a prompt from which on Claude Code should compact its conversation."""
        return compacts_at(self.context_tokens, self.output_tokens)

    @property
    def room_tokens(self) -> int:
        """What a conversation may hold beyond the first prompt."""
        return self.compacts_at_tokens - PROMPT_TOKENS[self.tools]


def compacts_at(context_tokens: int, output_tokens: int) -> int:
    """Claude Code's own rule."""
    return context_tokens - min(output_tokens, OUTPUT_CAP_TOKENS) - RESERVE_TOKENS


def plan_claude(facts: ModelFacts) -> Plan:
    """The most tools that the context carries; raises `UsageError` where it carries none."""
    output_tokens = output_tokens_of(facts)
    left = compacts_at(facts.context_tokens, output_tokens)
    for tools, prompt_tokens in PROMPT_TOKENS.items():
        if left - prompt_tokens >= ROOM_TOKENS[tools]:
            return Plan(facts.context_tokens, output_tokens, tools)
    raise too_small(facts, "Claude Code", smallest_context_tokens())


def smallest_context_tokens() -> int:
    """The smallest context that any plan of Claude Code is made for."""
    return with_an_answer(PROMPT_TOKENS["bare"] + ROOM_TOKENS["bare"] + RESERVE_TOKENS)


def note_of(plan: Plan) -> str:
    """What a user should know of the plan; "" where nothing was left out."""
    context = f"a context of {plan.context_tokens:,} tokens"
    match plan.tools:
        case "all":
            return ""
        case "reduced":
            return f"{context}: Claude Code gets the tools Bash, Edit, Read and Write only, and a shorter prompt"
        case "bare":
            return f"{context}: Claude Code runs bare, with the tools Bash, Edit and Read, so that its prompt fits"


class PromptPlan(msgspec.Struct, frozen=True):
    """The limits of an agent that has a long prompt and a short one, and which of them it gets."""

    context_tokens: int
    output_tokens: int
    is_reduced: bool

    @property
    def compacts_at_tokens(self) -> int:
        """The size of a prompt that leaves room for one answer."""
        return self.context_tokens - self.output_tokens


class Prompts(msgspec.Struct, frozen=True):
    """An agent's first requests, in tokens, with room for tokenizers that make more of them than others."""

    agent: str
    long_tokens: int
    short_tokens: int
    room_tokens: int = 3_000
    """What a conversation needs beyond it before it is compacted."""

    def plan(self, facts: ModelFacts) -> PromptPlan:
        """The longer prompt where the context carries it; raises `UsageError` where it carries none."""
        for prompt_tokens, is_reduced in ((self.long_tokens, False), (self.short_tokens, True)):
            plan = PromptPlan(facts.context_tokens, output_tokens_of(facts), is_reduced)
            if plan.compacts_at_tokens - prompt_tokens >= self.room_tokens:
                return plan
        raise too_small(facts, self.agent, with_an_answer(self.short_tokens + self.room_tokens))

    def note(self, plan: PromptPlan) -> str:
        """What a user should know of the plan; "" where nothing was left out."""
        if not plan.is_reduced:
            return ""
        return f"a context of {plan.context_tokens:,} tokens: {self.agent} gets fewer tools, and a shorter prompt"


def output_tokens_of(facts: ModelFacts) -> int:
    """An eighth of the context for an answer, within what model and agents can do with."""
    eighth = max(SMALLEST_OUTPUT_TOKENS, facts.context_tokens // 8)
    return min(eighth, LARGEST_OUTPUT_TOKENS, facts.max_output_tokens)


def with_an_answer(num_tokens: int) -> int:
    """The context in which an eighth for the answer leaves so many tokens."""
    return -(-num_tokens * 8 // 7)


def too_small(facts: ModelFacts, agent: str, least_tokens: int) -> UsageError:
    """The error where the agent's prompt does not fit."""
    return UsageError(
        f"{facts.name} has a context of {facts.context_tokens:,} tokens here, and {agent} needs {least_tokens:,} or"
        " more: take another model, or free memory if the context was cut to fit"
    )
