"""How the questions of one conversation are asked, as far as that was chosen for it: a preset, parameters, thinking.

What was not chosen is as the settings say, today's settings too. Knows no settings, no preset's file and no backend.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.generation import Thinking
from pensieve.sampling.params import RANGES, SamplingParams, merge, validate

PARAMETERS = (*RANGES, "max_tokens")
MOST_TOKENS = 2**24


class Choices(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was chosen; what is left out was not."""

    preset: Annotated[str, Meta(max_length=64)] = ""
    """The name of the one that its system prompt and its parameters came from; both are kept beside it."""
    sampling: SamplingParams = SamplingParams()
    max_tokens: Annotated[int, Meta(ge=1, le=MOST_TOKENS)] | None = None
    thinking: Thinking | None = None
    none: Annotated[tuple[str, ...], Meta(max_length=len(PARAMETERS))] = ()
    """Parameters that were chosen to have no value, whatever the settings say."""

    def value(self, name: str) -> float | int | None:
        """What was chosen for that parameter."""
        found: float | int | None = getattr(self if name == "max_tokens" else self.sampling, name)
        return found

    def with_value(self, name: str, value: float | None) -> Choices:
        """The choices with this value of the parameter; None: it was not chosen."""
        others = tuple(each for each in self.none if each != name)
        if name == "max_tokens":
            return msgspec.structs.replace(self, none=others, max_tokens=value)
        sampling = msgspec.structs.replace(self.sampling, **{name: value})
        return msgspec.structs.replace(self, none=others, sampling=sampling)

    def with_none(self, name: str) -> Choices:
        """The choices with no value for that parameter, whatever the settings say."""
        without = self.with_value(name, None)
        return msgspec.structs.replace(without, none=(*without.none, name))

    def below(self, stronger: Choices) -> Choices:
        """These choices, but where the stronger ones have a value."""
        chosen = self
        for name in PARAMETERS:
            if (value := stronger.value(name)) is not None:
                chosen = chosen.with_value(name, value)
        return chosen

    def shared_with(self, other: Choices) -> Choices:
        """Those values of parameters that the other choices have, too."""
        shared = Choices()
        for name in PARAMETERS:
            if self.value(name) == other.value(name):
                shared = shared.with_value(name, self.value(name))
        return shared

    def sampling_over(self, base: SamplingParams) -> SamplingParams:
        """What holds where the settings say `base`."""
        emptied = {name: None for name in self.none if name in RANGES}
        return msgspec.structs.replace(merge(base, self.sampling), **emptied)

    def max_tokens_over(self, base: int | None) -> int | None:
        """The longest answer, where the settings say `base`."""
        if "max_tokens" in self.none:
            return None
        return base if self.max_tokens is None else self.max_tokens


def checked(choices: Choices) -> Choices:
    """The same choices, if they are ones that can be made; else `InvalidRequest`."""
    validate(choices.sampling)
    strange = [name for name in choices.none if name not in PARAMETERS]
    if strange:
        raise InvalidRequest(f"there is no parameter {strange[0]!r}", path="none")
    budget = choices.thinking.budget_tokens if choices.thinking is not None else None
    if budget is not None and not 1 <= budget <= MOST_TOKENS:
        raise InvalidRequest(f"{budget} is no number of tokens to think", path="thinking")
    return choices
