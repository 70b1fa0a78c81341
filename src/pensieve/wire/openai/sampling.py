"""What all of OpenAI's requests have in common: sampling, stop strings, biases, thinking and sessions.

Knows no message. The names that the API lacks are those of other local servers.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.generation import Thinking
from pensieve.messages import Json
from pensieve.sampling.params import RANGES, SamplingParams, validate
from pensieve.wire.openai.effort import decode_effort

MAX_ANSWERS = 16
StopString = Annotated[str, Meta(max_length=1_000)]
Stop = StopString | Annotated[tuple[StopString, ...], Meta(max_length=64)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_TOKEN_ID = re.compile(r"[0-9]{1,9}", re.ASCII)
_NUM_SEEDS = int(RANGES["seed"].high) + 1


class SamplingBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields that decide how tokens are drawn and when the answer ends."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Stop | None = None
    stop_token_ids: tuple[TokenId, ...] | None = None
    logit_bias: dict[str, Bias] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)] | None = None
    user: Json = None
    prompt_cache_key: Json = None


class ThinkingBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether and how long to think, in the words of the Messages API, which other servers read here too."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None


class TemplateBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client asks of the model's template."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


def decode_sampling(body: SamplingBody) -> SamplingParams:
    """The parameters, in their ranges; any whole number is a seed."""
    fields = {name: getattr(body, name) for name in RANGES}
    if body.seed is not None:
        fields["seed"] = body.seed % _NUM_SEEDS
    # A low end of llama.cpp's and vLLM's own, which means that it is off.
    if body.top_k == -1:
        fields["top_k"] = 0
    return validate(SamplingParams(**fields))


def decode_stop(stop: Stop | None) -> tuple[str, ...]:
    """Stop strings; an empty one never comes."""
    return tuple(each for each in ((stop,) if isinstance(stop, str) else stop or ()) if each)


def decode_bias(bias: dict[str, float] | None) -> dict[int, float]:
    """Token ids and what is added to their logits; raises `InvalidRequest`."""
    given = bias or {}
    if not all(_TOKEN_ID.fullmatch(token) for token in given):
        raise InvalidRequest("its names must be token ids", path="logit_bias")
    return {int(token): value for token, value in given.items()}


def decode_affinity(body: SamplingBody, affinity_key: str) -> str:
    """What requests of one session have in common: headers say it best, then the client's key, then its user."""
    told = next((each for each in (body.prompt_cache_key, body.user) if isinstance(each, str) and each), "")
    return affinity_key or told[:200]


def decode_thinking(
    thinking: ThinkingBody | None, template: TemplateBody | None, effort: str | None, *, is_shown: bool
) -> Thinking | None:
    """The clearest of three ways to ask for it; None where nothing was said."""
    if thinking is not None:
        return Thinking(thinking.type, thinking.budget_tokens, is_shown=is_shown)
    asked = None if template is None else template.enable_thinking if template.thinking is None else template.thinking
    if asked is not None:
        return Thinking("enabled" if asked else "disabled", is_shown=is_shown)
    return None if effort is None else msgspec.structs.replace(decode_effort(effort), is_shown=is_shown)
